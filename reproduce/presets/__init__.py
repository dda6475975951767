"""Presets as data: what a recipe trains at each size. Nothing here runs anything."""
