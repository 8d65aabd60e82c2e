"""The light module: how fast and how quietly it declares, and whether it is true."""
