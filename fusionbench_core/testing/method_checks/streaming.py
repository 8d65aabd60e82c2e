"""Locality, memory, reading, interruption, artefacts."""
