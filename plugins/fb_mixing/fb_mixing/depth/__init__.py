"""Deeper models, made of copies of layers."""
