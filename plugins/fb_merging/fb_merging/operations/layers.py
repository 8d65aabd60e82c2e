"""Which numbered layer a tensor belongs to."""

from __future__ import annotations

from fusionbench_core import layer_of


def layer_path(name: str) -> str | None:
    """Path of the numbered layer in a tensor's name; None outside of the layers.

    >>> layer_path("vision_model.encoder.layers.3.mlp.fc1.weight")
    'vision_model.encoder.layers.3'
    """
    parts = name.split(".")
    for end in range(1, len(parts)):
        path = ".".join(parts[:end])
        if parts[end - 1].isdigit() and layer_of(f"{path}.") is not None:
            return path
    return None
