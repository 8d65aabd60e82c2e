"""Text models and tasks for FusionBench, with an embedded offline benchmark."""
