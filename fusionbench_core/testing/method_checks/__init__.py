"""Checks of fusion methods, `FM-…`."""
