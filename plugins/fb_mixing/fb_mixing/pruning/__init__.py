"""Pruning of sparse mixtures: whole experts, or weights of experts."""
