"""Tensors, modules, threads, corrupt files."""
