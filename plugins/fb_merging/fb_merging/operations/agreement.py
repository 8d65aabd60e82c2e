"""Whether functions in C give the bits of the torch code they stand for, on this very machine."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fb_merging.operations.combine import add_all, elect_and_merge
from fb_merging.operations.magnitude import Bits, bits_inside, magnitude_bits
from fb_merging.operations.native import (
    MERGE_FUNCTIONS,
    Inside,
    count_inside,
    drop_at_random,
    drop_by_rank,
    keep_largest,
    magnitudes_at,
    read_magnitudes,
    trim_and_elect,
)
from fb_merging.operations.sparsify import (
    drop_by_mask,
    hardshrink_below,
    linear_probabilities,
    rank_probability,
)
from fusionbench_core import StoredPieces


def agrees(library: ctypes.CDLL) -> bool:
    """Whether all functions of `sparse.c` give torch's bits, on task vectors and on models with a base."""
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
    return (
        _counting_agrees(library, pieces, [magnitude_bits(delta) for delta in deltas])
        and all(_dropping_agrees(library, delta) for delta in deltas)
        and _merging_agrees(library, pieces, deltas, base)
    )


def _counting_agrees(library: ctypes.CDLL, pieces: StoredPieces, bits: list[Bits]) -> bool:
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
    return counted is not None and all(map(_same_inside, counted, wanted))


def _dropping_agrees(library: ctypes.CDLL, delta: Tensor) -> bool:
    threshold = float(delta[1001].abs())
    uniform = torch.rand(len(delta), generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    rows, draws = delta[:2000].view(5, 400), uniform[:2000].view(5, 400)
    ranked = rank_probability(rows, 0.5, 0.2)
    probabilities = linear_probabilities(400, 0.5, 0.2, torch.float32)
    by_rank = drop_by_rank(library, rows, draws, probabilities, rescale=True)
    return (
        _same(keep_largest(library, delta, threshold), hardshrink_below(delta, threshold))
        and _same(
            drop_at_random(library, delta, uniform, 0.3, 0.3), drop_by_mask(delta, uniform, 0.3).div_(0.3)
        )
        and _same(by_rank, drop_by_mask(rows, draws, ranked).div_(ranked))
    )


def _merging_agrees(
    library: ctypes.CDLL, pieces: StoredPieces, deltas: list[Tensor], base: Tensor | None
) -> bool:
    low = [float(delta[1001].abs()) for delta in deltas]
    high, weights = [2.0, math.inf, 1.5], [0.5, 1.0, -0.3]
    given = {"thresholds": low, "ceilings": high, "factors": weights, "weights": weights}
    weighted = []
    for delta, smallest, largest, weight in zip(deltas, low, high, weights):
        trimmed = hardshrink_below(delta, smallest)
        weighted.append((trimmed - functional.hardshrink(trimmed, largest)) * weight)
    for merge_func in MERGE_FUNCTIONS:
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
