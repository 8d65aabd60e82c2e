"""Mixtures whose experts are task vectors: weights put together for each sample."""
