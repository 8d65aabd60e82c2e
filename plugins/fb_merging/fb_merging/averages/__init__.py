"""Averages of models and interpolations between them."""
