"""Whether functions in C give the bits of the torch code they stand for, on this very machine."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fb_merging.operations.combine import add_all, elect_and_merge
from fb_merging.operations.magnitude import Bits, bits_inside, magnitude_bits
from fb_merging.operations.native import (
    MERGE_FUNCTIONS,
    Drops,
    Inside,
    Source,
    by_rank,
    count_inside,
    drop_at_random,
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

ROWS, COLUMNS = 7, 286
"""Of the tensors compared: neither they nor their rows are whole blocks."""


def agrees(library: ctypes.CDLL) -> bool:
    """Whether all functions of `sparse.c` give torch's bits, on task vectors and on models with a base."""
    generator = torch.Generator().manual_seed(0)
    base, *deltas = torch.randn(4, ROWS * COLUMNS, generator=generator, dtype=torch.float32)
    deltas[0][:500] = deltas[1][:500] = 0
    deltas[2][250:750] = -deltas[0][250:750] - deltas[1][250:750]
    # Of one row, which are told apart by their last bits, or by their place alone.
    deltas[1][1150:1350] = 1 + torch.randperm(200, generator=generator) // 2 * 2.0**-23
    models = [base + delta for delta in deltas]
    differences = [model - base for model in models]
    return _agrees_on(library, StoredPieces(deltas), deltas) and _agrees_on(
        library, StoredPieces(models, base), differences, base
    )


def _agrees_on(
    library: ctypes.CDLL, pieces: StoredPieces, deltas: list[Tensor], base: Tensor | None = None
) -> bool:
    whole = Source(pieces)
    steps = linear_probabilities(COLUMNS, 0.5, 0.2, torch.float32)
    ranked = by_rank(library, pieces, 1, COLUMNS, steps)
    wanted = rank_probability(deltas[1].view(ROWS, COLUMNS), 0.5, 0.2).view(-1)
    if ranked is None or not _same(ranked, wanted):
        return False
    generator = torch.Generator().manual_seed(1)
    uniform = list(torch.rand(3, len(wanted), generator=generator, dtype=torch.float32))
    probabilities = [0.3, wanted, 1.0]
    kept = [drop_by_mask(*each).div_(each[2]) for each in zip(deltas, uniform, probabilities)]
    dropped = Source(pieces, Drops(uniform, probabilities, rescale=True))
    return (
        all(map(_trimming_agrees, [library] * 3, deltas))
        and all(map(_dropping_agrees, [library] * 3, deltas, uniform, probabilities))
        and _counting_agrees(library, whole, deltas)
        and _counting_agrees(library, dropped, kept)
        and _merging_agrees(library, whole, deltas, base)
        and _merging_agrees(library, dropped, kept, base)
    )


def _counting_agrees(library: ctypes.CDLL, source: Source, deltas: Sequence[Tensor]) -> bool:
    bits: list[Bits] = [magnitude_bits(delta) for delta in deltas]
    read = read_magnitudes(library, source, 1500)
    if read is None or not np.array_equal(read, [each[:1500] for each in bits]):
        return False
    places = [0, 400, 1000, len(bits[0]) - 1]
    for model, each in enumerate(bits):
        if magnitudes_at(library, source, model, places) != np.sort(each)[places].view(np.float32).tolist():
            return False
    start, stop = sorted(map(int, bits[0][1001:1003]))
    ranges = [(start, stop), (0, stop), (start, 1 << 31)]
    counted = count_inside(library, source, ranges)
    wanted = [bits_inside(each, *limits) for each, limits in zip(bits, ranges)]
    return counted is not None and all(map(_same_inside, counted, wanted))


def _trimming_agrees(library: ctypes.CDLL, delta: Tensor) -> bool:
    threshold = float(delta[1001].abs())
    return _same(keep_largest(library, delta, threshold), hardshrink_below(delta, threshold))


def _dropping_agrees(
    library: ctypes.CDLL, delta: Tensor, uniform: Tensor, probability: Tensor | float
) -> bool:
    left = drop_by_mask(delta, uniform, probability)
    return _same(drop_at_random(library, delta, uniform, probability, rescale=False), left) and _same(
        drop_at_random(library, delta, uniform, probability, rescale=True), left / probability
    )


def _merging_agrees(library: ctypes.CDLL, source: Source, deltas: list[Tensor], base: Tensor | None) -> bool:
    low = [float(delta[1001].abs()) for delta in deltas]
    high, weights = [2.0, math.inf, 1.5], [0.5, 1.0, -0.3]
    given = {"thresholds": low, "ceilings": high, "factors": weights, "weights": weights}
    weighted = []
    for delta, smallest, largest, weight in zip(deltas, low, high, weights):
        trimmed = hardshrink_below(delta, smallest)
        weighted.append((trimmed - functional.hardshrink(trimmed, largest)) * weight)
    for merge_func in MERGE_FUNCTIONS:
        merged = trim_and_elect(library, source, merge_func, **given, divisor=1.2, scale=0.4)
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
