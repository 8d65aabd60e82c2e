"""Weight-space merging methods for FusionBench: several fine-tuned models in, one model out."""
