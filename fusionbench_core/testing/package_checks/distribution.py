"""What is installed: metadata, files, what is left behind."""
