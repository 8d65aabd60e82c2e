"""Model mixing for FusionBench: mixtures of experts and up-scaling, a new architecture out."""
