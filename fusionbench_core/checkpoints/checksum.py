"""A checksum that costs next to nothing, against writes that were lost.

After a power failure, blocks of a file can be missing that a journal says are written; they read as zeros.
The checksum tells. It does not tell who wrote a tensor: hashes do (`hash_tensor`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

WORD = 8
"""Bytes of a word."""


def checksum(values: Tensor, start: int = 0) -> int:
    """Sum modulo 2**64 of the 8-byte words of a tensor's bytes, or of its entries from `start` on.

    Words are counted from the tensor's start, so the sums of its pieces add up to that of the whole.
    """
    raw = values.contiguous().view(-1).view(torch.uint8)
    lead = start * values.dtype.itemsize % WORD
    trail = -(lead + len(raw)) % WORD
    if lead or trail or raw.storage_offset() % WORD:
        raw = pad(raw, (lead, trail))
    return int(raw.view(torch.int64).sum()) % 2**64


def add_checksums(first: int, second: int) -> int:
    """The checksum of two pieces of a tensor together."""
    return (first + second) % 2**64
