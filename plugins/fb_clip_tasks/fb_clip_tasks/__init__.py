"""CLIP and image-classification models and tasks for FusionBench, with an embedded offline benchmark."""
