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
from torch.nn import functional

from fb_merging.operations.per_model import below_all
from fusionbench_core import NativeKernels, StoredPieces, TensorGroup

Inside = tuple[NDArray[np.int32], int]
"""The bits of magnitudes in a range, and how many magnitudes lie beyond it."""

_MERGE_FUNCTIONS = ("mean", "sum", "max", "all")
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
        _MERGE_FUNCTIONS.index(merge_func),
        divisor if merge_func == "all" else below_all(weights),
        scale,
        scratch.data_ptr(),
    )
    return out if finite else None


def _agrees(library: ctypes.CDLL) -> bool:
    generator = torch.Generator().manual_seed(0)
    base, *deltas = torch.randn(4, 2003, generator=generator, dtype=torch.float32)
    deltas[0][:500] = deltas[1][:500] = 0
    deltas[2][250:750] = -deltas[0][250:750] - deltas[1][250:750]
    models = [base + delta for delta in deltas]
    differences = [model - base for model in models]
    return _agrees_on(library, StoredPieces(deltas), deltas) and _agrees_on(
        library, StoredPieces(models, base), differences, base
    )


def _agrees_on(
    library: ctypes.CDLL, pieces: StoredPieces, deltas: list[Tensor], base: Tensor | None = None
) -> bool:
    # Imported late: these modules use this one.
    from fb_merging.operations.combine import add_all, elect_and_merge
    from fb_merging.operations.magnitude import bits_inside, magnitude_bits
    from fb_merging.operations.sparsify import (
        drop_by_mask,
        hardshrink_below,
        linear_probabilities,
        rank_probability,
    )

    bits = [magnitude_bits(delta) for delta in deltas]
    read = read_magnitudes(library, pieces, 1500)
    if read is None or not np.array_equal(read, [each[:1500] for each in bits]):
        return False
    places = [0, 400, 1000, 2002]
    for model, each in enumerate(bits):
        if magnitudes_at(library, pieces, model, places) != np.sort(each)[places].view(np.float32).tolist():
            return False
    start, stop = sorted(map(int, bits[0][1001:1003]))
    ranges = [(start, stop), (0, stop), (start, 1 << 31)]
    counted = count_inside(library, pieces, ranges)
    wanted = [bits_inside(each, *limits) for each, limits in zip(bits, ranges)]
    if counted is None or not all(map(_same_inside, counted, wanted)):
        return False
    thresholds = [float(delta[1001].abs()) for delta in deltas]
    trimmed = [hardshrink_below(delta, threshold) for delta, threshold in zip(deltas, thresholds)]
    kept = [keep_largest(library, *each) for each in zip(deltas, thresholds)]
    if not all(map(_same, kept, trimmed)):
        return False
    uniform = torch.rand(len(deltas[0]), generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    dropped = [drop_at_random(library, delta, uniform, 0.3, 0.3) for delta in deltas]
    if not all(map(_same, dropped, [drop_by_mask(delta, uniform, 0.3).div_(0.3) for delta in deltas])):
        return False
    probabilities = linear_probabilities(400, 0.5, 0.2, torch.float32)
    for delta in deltas:
        rows, draws = delta[:2000].view(5, 400), uniform[:2000].view(5, 400)
        dropped = drop_by_rank(library, rows, draws, probabilities, rescale=True)
        ranked = rank_probability(rows, 0.5, 0.2)
        if not _same(dropped, drop_by_mask(rows, draws, ranked).div_(ranked)):
            return False
    weights, ceilings = [0.5, 1.0, -0.3], [2.0, math.inf, 1.5]
    weighted = [
        (delta - functional.hardshrink(delta, ceiling)) * weight
        for delta, ceiling, weight in zip(trimmed, ceilings, weights)
    ]
    given = {"thresholds": thresholds, "ceilings": ceilings, "factors": weights, "weights": weights}
    for merge_func in _MERGE_FUNCTIONS:
        merged = trim_and_elect(library, pieces, merge_func, **given, divisor=1.2, scale=0.4)
        if merge_func == "all":
            wanted = add_all(weighted).div_(1.2)
        else:
            wanted = elect_and_merge(weighted, merge_func, weights)
        wanted = wanted if base is None else torch.add(base, wanted, alpha=0.4)
        if merged is None or not _same(merged, wanted):
            return False
    return True


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def _same_inside(one: Inside, other: Inside) -> bool:
    return one[1] == other[1] and np.array_equal(one[0], other[0])


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
