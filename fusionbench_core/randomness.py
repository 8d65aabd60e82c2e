"""Random numbers that depend on what they are for, never on when they are drawn."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Entries drawn from one generator; part of the definition of every random method's result."""


def keyed_generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator seeded by a hash of `seed` and `key`; global random state is not touched."""
    text = "\x1f".join(str(part) for part in (seed, *key))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(number & (2**63 - 1))


def uniform_block(seed: int, model: str, tensor: str, start: int, stop: int) -> Tensor:
    """Entries `start` to `stop` of the endless uniform sequence of (seed, model, tensor), fp32."""
    pieces = []
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        generator = keyed_generator(seed, model, tensor, block)
        low, high = max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK)
        # Numbers are drawn one after the other: what follows the last one wanted need not be drawn.
        pieces.append(torch.rand(high, generator=generator, dtype=torch.float32)[low:])
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.float32)
