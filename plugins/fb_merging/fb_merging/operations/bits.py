"""Booleans packed eight to a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def packed_size(n: int) -> int:
    """Bytes that hold `n` booleans."""
    return -(-n // 8)


def pack(flags: Tensor) -> Tensor:
    """uint8 `(packed_size(n),)`: the `n` booleans of a tensor, flattened, the first in the lowest bit."""
    flat = flags.reshape(-1).to(torch.uint8)
    padded = torch.zeros(8 * packed_size(len(flat)), dtype=torch.uint8, device=flat.device)
    padded[: len(flat)] = flat
    return (padded.view(-1, 8) << _places(flat.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, n: int) -> Tensor:
    """bool `(n,)`: the inverse of :func:`pack`."""
    return ((packed[:, None] >> _places(packed.device)) & 1).bool().view(-1)[:n]


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
