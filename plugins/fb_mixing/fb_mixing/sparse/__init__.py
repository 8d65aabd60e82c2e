"""Sparse mixtures of whole feed-forward modules, as in Mixtral."""
