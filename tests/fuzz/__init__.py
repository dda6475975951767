"""Readers against damaged and odd inputs, by seed."""
