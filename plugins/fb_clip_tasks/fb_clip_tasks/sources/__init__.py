"""Model sources: transformers and open_clip vision models."""
