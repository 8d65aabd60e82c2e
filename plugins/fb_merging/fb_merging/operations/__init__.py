"""The small functions that methods are composed of: sparsify, combine, and what they need."""
