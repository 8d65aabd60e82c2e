"""Artefacts: fused models on disk that load back in a fresh process."""
