"""Checks of model sources, `FS-…`."""
