"""From pixels in [0, 1] to what a vision model takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `(n, c, h, w)` at another size, bicubic with anti-aliasing; themselves if it is theirs."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)


def normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """`(pixels - mean) / std`, one value a channel."""
    shape = (1, -1, 1, 1)
    return (pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def size_of(trunk: nn.Module) -> tuple[int, int] | None:
    """Height and width that a vision model needs; None if it takes any or does not say.

    A model takes any size if nothing in it depends on positions, whatever size its config names.
    """
    if not any("position" in name or "pos_embed" in name for name, _ in trunk.named_parameters()):
        return None
    config = getattr(trunk, "config", None)
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None)
    if size is None:
        size = getattr(getattr(trunk, "visual", trunk), "image_size", None)
    if isinstance(size, int):
        return (size, size)
    return (size[0], size[1]) if isinstance(size, (tuple, list)) and len(size) == 2 else None
