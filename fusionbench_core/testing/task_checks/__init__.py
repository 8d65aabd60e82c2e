"""Checks of task evaluators, `FT-…`."""
