"""Closed-form methods that read statistics of the models on data, and the statistics."""
