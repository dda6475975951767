"""Shared by the commands of the suite: parsing of arguments, progress on the screen, printing of tables."""
