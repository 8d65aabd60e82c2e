"""Random numbers that depend on what they are for, never on when they are drawn."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.native import NativeKernels

BLOCK = 1 << 16
"""Entries drawn from one generator; part of the definition of every random method's result."""


def keyed_generator(seed: int, *key: object) -> torch.Generator:
    """A CPU generator seeded by a hash of `seed` and `key`; global random state is not touched."""
    return torch.Generator().manual_seed(_keyed_seed(seed, *key))


def _keyed_seed(seed: int, *key: object) -> int:
    text = "\x1f".join(str(part) for part in (seed, *key))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return number & (2**63 - 1)


def uniform_block(seed: int, model: str, tensor: str, start: int, stop: int) -> Tensor:
    """Entries `start` to `stop` of the endless uniform sequence of (seed, model, tensor), fp32."""
    out, library = torch.empty(max(stop - start, 0), dtype=torch.float32), _KERNELS.library(stop - start)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        block_seed = _keyed_seed(seed, model, tensor, block)
        low, high = max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK)
        part = out[block * BLOCK + low - start : block * BLOCK + high - start]
        if library:
            library.uniform_numbers(part.data_ptr(), block_seed, low, high)
        else:
            part.copy_(_drawn(block_seed, low, high))
    return out


def _drawn(seed: int, start: int, stop: int) -> Tensor:
    # Numbers are drawn one after the other: what follows the last one wanted need not be drawn.
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(stop, generator=generator, dtype=torch.float32)[start:]


def _agrees(library: ctypes.CDLL) -> bool:
    out = torch.empty(1500, dtype=torch.float32)
    for seed in (0, 2**63 - 1, 0x123456789ABCDEF):
        library.uniform_numbers(out.data_ptr(), seed, 400, 1900)
        if not torch.equal(out, _drawn(seed, 400, 1900)):
            return False
    return True


_KERNELS = NativeKernels(
    Path(__file__).with_name("random.c"),
    {"uniform_numbers": (ctypes.c_void_p, *(ctypes.c_int64,) * 3)},
    _agrees,
)
