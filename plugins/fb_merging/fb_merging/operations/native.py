"""Trimming and electing in C, where there is a compiler; the same bits as the torch code that calls it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fb_merging.operations.per_model import below_all
from fusionbench_core import NativeKernels, StoredPieces

Inside = tuple[NDArray[np.int32], int]
"""The bits of magnitudes in a range, and how many magnitudes lie beyond it."""


class _Drop(ctypes.Structure):
    _fields_ = (
        ("uniform", ctypes.c_void_p),
        ("probabilities", ctypes.c_void_p),
        ("probability", ctypes.c_float),
        ("rescale", ctypes.c_int64),
    )


class Drops:
    """How entries of each model's task vector are dropped at random: `drop` of `sparse.c`.

    Args:
        uniform: For each model, `(entries,)` fp32 from [0, 1), contiguous.
        probabilities: For each model, that of an entry to be kept: one for all, or `(entries,)` fp32.
        rescale: Whether what is kept is divided by its probability.

    Attributes:
        address: Where the structures are.
    """

    def __init__(
        self, uniform: Sequence[Tensor], probabilities: Sequence[Tensor | float], *, rescale: bool
    ) -> None:
        self._kept = [*uniform, *probabilities]
        each = [
            _Drop(drawn.data_ptr(), one.data_ptr(), 1.0, rescale)
            if isinstance(one, Tensor)
            else _Drop(drawn.data_ptr(), None, one, rescale)
            for drawn, one in zip(uniform, probabilities)
        ]
        self._drops = (_Drop * len(each))(*each)
        self.address = ctypes.addressof(self._drops)


@dataclass(frozen=True)
class Source:
    """Task vectors that functions in C read: pieces as they are stored, less what is dropped at random."""

    pieces: StoredPieces
    drops: Drops | None = None

    @property
    def addresses(self) -> tuple[int, int | None]:
        return self.pieces.address, self.drops.address if self.drops else None


MERGE_FUNCTIONS = ("mean", "sum", "max", "all")
"""What `trim_and_elect` can do, in the order of `sparse.c`."""

_BLOCK = 1024
"""Entries of a block; the same as in `stored.h`."""

_LANES = 16
"""Entries that are sifted together; the same as in `sparse.c`."""

_RANKED = 1 << 15
"""Entries whose keys are sorted at a time, if rows are not longer: they stay in the cache."""

_LONGEST_ROW = 1 << 16
"""Columns whose number leaves half of a key to the magnitude."""


def library_for(entries: int) -> ctypes.CDLL | None:
    """The functions, if they are there by now."""
    return _KERNELS.library(entries)


def pieces_of(deltas: Sequence[Tensor]) -> StoredPieces | None:
    """Task vectors as pieces without a base, if the functions can read them."""
    return StoredPieces.of(deltas) if all(delta.dtype == torch.float32 for delta in deltas) else None


def keep_largest(library: ctypes.CDLL, delta: Tensor, threshold: float) -> Tensor:
    """`delta`, of which pieces can be made, with 0 in place of all magnitudes below `threshold`."""
    kept = torch.empty_like(delta)
    library.keep_largest(kept.data_ptr(), delta.data_ptr(), threshold, delta.numel())
    return kept


def drop_at_random(
    library: ctypes.CDLL, delta: Tensor, uniform: Tensor, probability: Tensor | float, *, rescale: bool
) -> Tensor:
    """`delta` where `uniform` is below `probability`, else 0, divided by it; pieces can be made of all."""
    kept = torch.empty_like(delta)
    source = Source(StoredPieces([delta]), Drops([uniform], [probability], rescale=rescale))
    library.drop_at_random(kept.data_ptr(), *source.addresses, 0)
    return kept


def by_rank(
    library: ctypes.CDLL, pieces: StoredPieces, model: int, columns: int, numbers: Tensor
) -> Tensor | None:
    """`(entries,)`: number r for the entry of rank r by magnitude, equal ones by their place, in each row.

    Args:
        library: The functions.
        pieces: The models.
        model: Whose task vector is ranked.
        columns: Entries of a row.
        numbers: `(columns,)` fp32.

    Returns:
        None with NaN and Inf, and where rows are too long.
    """
    if columns > _LONGEST_ROW:
        return None
    result = torch.empty(pieces.entries, dtype=torch.float32)
    rows, place_bits = max(1, _RANKED // columns), max(1, (columns - 1).bit_length())
    keys, bits = np.empty((rows, columns), np.uint32), np.empty((rows, columns), np.int32)
    scratch = np.empty(columns, np.int64)
    for first in range(0, pieces.entries, rows * columns):
        last = min(first + rows * columns, pieces.entries)
        part, addresses = keys[: (last - first) // columns], (keys.ctypes.data, bits.ctypes.data)
        if not library.rank_keys(*addresses, pieces.address, model, columns, place_bits, first, last):
            return None
        part.sort(axis=-1)
        sizes = len(part), columns, place_bits
        out = result[first:last].data_ptr()
        library.by_rank(out, *addresses, numbers.data_ptr(), *sizes, scratch.ctypes.data)
    return result


def read_magnitudes(library: ctypes.CDLL, source: Source, entries: int) -> NDArray[np.int32] | None:
    """`(models, entries)`: the bits of the first magnitudes of each task vector; None with NaN and Inf."""
    out = np.empty((source.pieces.models, entries), np.int32)
    return out if library.read_magnitudes(out.ctypes.data, *source.addresses, entries) else None


def magnitudes_at(
    library: ctypes.CDLL, source: Source, model: int, places: Sequence[int]
) -> list[float] | None:
    """The magnitudes at these places of a task vector if all were sorted; None with NaN and Inf."""
    counts = np.zeros(2048, np.int64)
    if not library.count_leading(counts.ctypes.data, *source.addresses, model):
        return None
    below, buffer, found = counts.cumsum(), _buffer(source), []
    for place in places:
        leading = int(np.searchsorted(below, place, side="right"))
        inside = _sifted(library, buffer, source, model, (leading << 20, (leading + 1) << 20))
        assert inside is not None
        place -= int(below[leading] - counts[leading])
        found.append(float(np.partition(inside[0], place)[place].view(np.float32)))
    return found


def count_inside(
    library: ctypes.CDLL, source: Source, ranges: Sequence[tuple[int, int]]
) -> list[Inside] | None:
    """What each task vector has in its range of bits, the upper one excluded; None with NaN and Inf."""
    buffer, found = _buffer(source), []
    for model, limits in enumerate(ranges):
        inside = _sifted(library, buffer, source, model, limits)
        if inside is None:
            return None
        found.append((inside[0].copy(), inside[1]))
    return found


def _buffer(source: Source) -> NDArray[np.int32]:
    return np.empty(source.pieces.entries + _LANES, np.int32)


def _sifted(
    library: ctypes.CDLL, buffer: NDArray[np.int32], source: Source, model: int, limits: tuple[int, int]
) -> Inside | None:
    """What is inside, as a part of the buffer."""
    counts = (ctypes.c_int64 * 2)()
    into = buffer.ctypes.data, ctypes.addressof(counts)
    finite = library.count_inside(*into, *source.addresses, model, *limits)
    return (buffer[: counts[0]], counts[1]) if finite else None


def trim_and_elect(
    library: ctypes.CDLL,
    source: Source,
    merge_func: str,
    *,
    thresholds: Sequence[float] | None = None,
    ceilings: Sequence[float] | None = None,
    factors: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    divisor: float = 1.0,
    scale: float = 1.0,
) -> Tensor | None:
    """Trim, multiply, elect a sign for each entry, and merge what has it; None with NaN and Inf.

    With a base, the result is added to it.

    Args:
        library: The functions.
        source: The models and the base, or the task vectors alone, and what is dropped of them first.
        merge_func: `mean`, `sum` or `max`; or `all`: the sum over `divisor`, and nothing is elected.
        thresholds: For each task vector, the smallest magnitude that is kept; all are by default.
        ceilings: The same for the largest.
        factors: What each is multiplied with then, 1 by default.
        weights: How much each counts in the mean, without sign, 1 by default.
        divisor: What the sum of all is divided by.
        scale: What the result is multiplied with before it is added to the base.

    Returns:
        `(entries,)`: the merged task vector, or the merged model, fp32.
    """
    pieces = source.pieces
    ones = [1.0] * pieces.models
    weights = [abs(weight) for weight in weights or ones]
    low, high = thresholds or [0.0] * pieces.models, ceilings or [math.inf] * pieces.models
    lists = low, high, factors or ones, weights
    arrays = [(ctypes.c_float * pieces.models)(*each) for each in lists]
    out, scratch = (
        torch.empty(pieces.entries, dtype=torch.float32),
        torch.empty(pieces.models * _BLOCK, dtype=torch.float32),
    )
    finite = library.trim_and_elect(
        out.data_ptr(),
        *source.addresses,
        *(ctypes.addressof(each) for each in arrays),
        MERGE_FUNCTIONS.index(merge_func),
        divisor if merge_func == "all" else below_all(weights),
        scale,
        scratch.data_ptr(),
    )
    return out if finite else None


def _agrees(library: ctypes.CDLL) -> bool:
    # Imported late: what is compared uses this module.
    from fb_merging.operations.agreement import agrees

    return agrees(library)


_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_KERNELS = NativeKernels(
    Path(__file__).with_name("sparse.c"),
    {
        "keep_largest": (_POINTER, _POINTER, _FLOAT, _INTEGER),
        "drop_at_random": (_POINTER, _POINTER, _POINTER, _INTEGER),
        "rank_keys": (_POINTER,) * 3 + (_INTEGER,) * 5,
        "by_rank": (_POINTER,) * 4 + (_INTEGER,) * 3 + (_POINTER,),
        "read_magnitudes": (_POINTER, _POINTER, _POINTER, _INTEGER),
        "count_leading": (_POINTER, _POINTER, _POINTER, _INTEGER),
        "count_inside": (_POINTER,) * 4 + (_INTEGER,) * 3,
        "trim_and_elect": (_POINTER,) * 7 + (_INTEGER, _FLOAT, _FLOAT, _POINTER),
    },
    _agrees,
)
