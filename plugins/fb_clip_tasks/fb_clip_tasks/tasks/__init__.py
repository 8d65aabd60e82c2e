"""Tasks: zero-shot and ordinary classification of images."""
