"""Output-space ensembles for FusionBench: several models in, one predictor out."""
