"""Checks of a plugin as a whole, `FP-…`."""
