"""Trimming and electing in C, where there is a compiler; the same bits as the torch code that calls it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fb_merging.operations.per_model import below_all
from fusionbench_core import NativeKernels, StoredPieces, TensorGroup

Inside = tuple[NDArray[np.int32], int]
"""The bits of magnitudes in a range, and how many magnitudes lie beyond it."""

MERGE_FUNCTIONS = ("mean", "sum", "max", "all")
"""What `trim_and_elect` can do, in the order of `sparse.c`."""

_BLOCK = 1024
"""Entries of a block; the same as in `stored.h`."""

_LANES = 16
"""Entries that are sifted together; the same as in `sparse.c`."""


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
    library: ctypes.CDLL, delta: Tensor, uniform: Tensor, probability: float, divisor: float
) -> Tensor:
    """`delta` where `uniform` is below `probability`, else 0, over `divisor`; pieces can be made of both."""
    kept = torch.empty_like(delta)
    addresses = kept.data_ptr(), delta.data_ptr(), uniform.data_ptr()
    library.drop_at_random(*addresses, probability, divisor, delta.numel())
    return kept


def drop_by_rank(
    library: ctypes.CDLL, delta: Tensor, uniform: Tensor, probabilities: Tensor, *, rescale: bool
) -> Tensor:
    """`(rows, columns)`: each row with the entry of rank r kept with `probabilities[r]`, by magnitude."""
    rows, columns = delta.shape
    kept, keys = torch.empty_like(delta), np.empty((rows, columns), np.int64)
    library.rank_keys(keys.ctypes.data, delta.data_ptr(), rows, columns)
    keys.sort(axis=-1)
    inputs = delta.data_ptr(), uniform.data_ptr(), keys.ctypes.data, probabilities.data_ptr()
    library.drop_by_rank(kept.data_ptr(), *inputs, rescale, rows, columns)
    return kept


def read_magnitudes(library: ctypes.CDLL, pieces: StoredPieces, entries: int) -> NDArray[np.int32] | None:
    """`(models, entries)`: the bits of the first magnitudes of each task vector; None with NaN and Inf."""
    out = np.empty((pieces.models, entries), np.int32)
    return out if library.read_magnitudes(out.ctypes.data, pieces.address, entries) else None


def magnitudes_at(
    library: ctypes.CDLL, pieces: StoredPieces, model: int, places: Sequence[int]
) -> list[float] | None:
    """The magnitudes at these places of a task vector if all were sorted; None with NaN and Inf."""
    counts = np.zeros(2048, np.int64)
    if not library.count_leading(counts.ctypes.data, pieces.address, model):
        return None
    below, buffer, found = counts.cumsum(), _buffer(pieces), []
    for place in places:
        leading = int(np.searchsorted(below, place, side="right"))
        inside = _sifted(library, buffer, pieces, model, (leading << 20, (leading + 1) << 20))
        assert inside is not None
        place -= int(below[leading] - counts[leading])
        found.append(float(np.partition(inside[0], place)[place].view(np.float32)))
    return found


def magnitudes_of(group: TensorGroup, places: Sequence[Sequence[int]]) -> list[list[float]] | None:
    """For each model of a group, the magnitudes at its places, from the pieces as they are stored."""
    entries = math.prod(group.piece_shape)
    library = library_for(entries * len(places)) if entries else None
    pieces = group.stored() if library else None
    if library is None or pieces is None:
        return None
    found = [magnitudes_at(library, pieces, model, each) for model, each in enumerate(places)]
    return None if None in found else [each for each in found if each is not None]


def count_inside(
    library: ctypes.CDLL, pieces: StoredPieces, ranges: Sequence[tuple[int, int]]
) -> list[Inside] | None:
    """What each task vector has in its range of bits, the upper one excluded; None with NaN and Inf."""
    buffer, found = _buffer(pieces), []
    for model, limits in enumerate(ranges):
        inside = _sifted(library, buffer, pieces, model, limits)
        if inside is None:
            return None
        found.append((inside[0].copy(), inside[1]))
    return found


def _buffer(pieces: StoredPieces) -> NDArray[np.int32]:
    return np.empty(pieces.entries + _LANES, np.int32)


def _sifted(
    library: ctypes.CDLL, buffer: NDArray[np.int32], pieces: StoredPieces, model: int, limits: tuple[int, int]
) -> Inside | None:
    """What is inside, as a part of the buffer."""
    counts = (ctypes.c_int64 * 2)()
    into = buffer.ctypes.data, ctypes.addressof(counts)
    finite = library.count_inside(*into, pieces.address, model, *limits)
    return (buffer[: counts[0]], counts[1]) if finite else None


def trim_and_elect(
    library: ctypes.CDLL,
    pieces: StoredPieces,
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
        pieces: The models and the base, or the task vectors alone.
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
        pieces.address,
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
        "drop_at_random": (_POINTER, _POINTER, _POINTER, _FLOAT, _FLOAT, _INTEGER),
        "rank_keys": (_POINTER, _POINTER, _INTEGER, _INTEGER),
        "drop_by_rank": (_POINTER,) * 5 + (_INTEGER,) * 3,
        "read_magnitudes": (_POINTER, _POINTER, _INTEGER),
        "count_leading": (_POINTER, _POINTER, _INTEGER),
        "count_inside": (_POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER, _INTEGER),
        "trim_and_elect": (_POINTER,) * 6 + (_INTEGER, _FLOAT, _FLOAT, _POINTER),
    },
    _agrees,
)
