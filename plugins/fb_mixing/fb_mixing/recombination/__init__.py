"""Models made of layers of others."""
