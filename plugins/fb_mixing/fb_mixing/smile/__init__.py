"""SMILE: sparse mixtures of low-rank experts, built from fine-tuned models without training."""
