"""Exact magnitude thresholds of whole models, found by streaming over them twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fb_merging.operations.per_model import PerModel, values_of
from fb_merging.operations.sparsify import count_kept
from fusionbench_core import Survey, TensorGroup

DIGITS = (16, 15)
"""How many bits of an fp32 magnitude each round looks at, from the top; all but the sign."""


@dataclass(frozen=True)
class Histogram:
    """Entries counted by bucket, for each of several models: int64 `(models, buckets)`."""

    names: tuple[str, ...]
    counts: Tensor

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.names, self.counts + other.counts)


@dataclass(frozen=True)
class MagnitudeThreshold(Survey):
    """Radix selection of the k-th largest magnitude of each model's task vector, over all its tensors.

    The bits of a non-negative float, read as an integer, order like the float. So a histogram of the
    upper bits tells the bucket of the k-th largest, and a second histogram within that bucket tells its
    other bits: memory is one histogram a model, whatever the size of the models. Counts are integers, so
    their sum is exact in any order.

    The result is a list of one threshold a model, in the order of the group's models: the `k`-th largest of
    its `n` magnitudes, `k = count_kept(density, n)`. Keeping all entries at or above it keeps `k` entries,
    and more only if several equal it. Magnitudes in fp64 are cut to fp32 first, so that entries equal the
    threshold which agree with it in their first 24 bits.

    Attributes:
        density: Fraction of the entries to keep, for all models or for each.
        level: How many digits are known.
        prefix: For each model, the digits of the threshold found so far, as an integer.
        rank: For each model, the threshold's rank, from the largest down and counted from 1, among the
            entries with these digits.
    """

    density: PerModel
    level: int = 0
    prefix: tuple[int, ...] = ()
    rank: tuple[int, ...] = ()

    def observe(self, group: TensorGroup) -> Histogram:
        """Entries by their next digit, among those with the known ones."""
        counts = [self._count(delta, model) for model, delta in enumerate(group.deltas)]
        return Histogram(group.names, torch.stack(counts))

    def advance(self, total: Histogram | None) -> MagnitudeThreshold | list[float]:
        if total is None:
            return []
        ranks = self.rank or self._first_ranks(total)
        found = [_bucket(counts, rank) for counts, rank in zip(total.counts, ranks)]
        known = self.prefix or (0,) * len(found)
        prefix = tuple(digits << DIGITS[self.level] | digit for digits, (digit, _) in zip(known, found))
        rank = tuple(rank for _, rank in found)
        if self.level + 1 == len(DIGITS):
            return torch.tensor(prefix, dtype=torch.int32).view(torch.float32).tolist()
        return replace(self, level=self.level + 1, prefix=prefix, rank=rank)

    def _first_ranks(self, total: Histogram) -> list[int]:
        densities = values_of(self.density, total.names, "density")
        return [count_kept(density, int(counts.sum())) for density, counts in zip(densities, total.counts)]

    def _count(self, delta: Tensor, model: int) -> Tensor:
        below = sum(DIGITS[self.level + 1 :])
        buckets = 1 << DIGITS[self.level]
        first = self.prefix[model] * buckets << below if self.level else 0
        # Entries outside of the known digits' range go to two buckets of their own, which are dropped:
        # much cheaper than selecting those inside.
        digits = ((magnitude_bits(delta) - first) >> below).clamp_(-1, buckets).add_(1)
        return torch.bincount(digits, minlength=buckets + 2)[1:-1]


@dataclass(frozen=True)
class PairedHistogram:
    """What the two surveys of a pair have seen."""

    first: Histogram
    second: Histogram

    def __add__(self, other: PairedHistogram) -> PairedHistogram:
        return PairedHistogram(self.first + other.first, self.second + other.second)


@dataclass(frozen=True)
class ThresholdPair(Survey):
    """The thresholds of two densities, found side by side; the result is a pair of lists."""

    first: MagnitudeThreshold
    second: MagnitudeThreshold

    @classmethod
    def of(cls, first: PerModel, second: PerModel) -> ThresholdPair:
        """A pair that has not seen anything yet."""
        return cls(MagnitudeThreshold(first), MagnitudeThreshold(second))

    def observe(self, group: TensorGroup) -> PairedHistogram:
        return PairedHistogram(self.first.observe(group), self.second.observe(group))

    def advance(self, total: PairedHistogram | None) -> ThresholdPair | tuple[list[float], list[float]]:
        if total is None:
            return [], []
        first, second = self.first.advance(total.first), self.second.advance(total.second)
        if isinstance(first, MagnitudeThreshold) and isinstance(second, MagnitudeThreshold):
            return ThresholdPair(first, second)
        assert isinstance(first, list)
        assert isinstance(second, list)
        return first, second


def thresholds_of(group: TensorGroup, density: PerModel) -> list[float]:
    """The thresholds of one group by itself, found in the same way."""
    survey = MagnitudeThreshold(density)
    while isinstance(survey, MagnitudeThreshold):
        survey = survey.advance(survey.observe(group))
    return survey


def magnitude_bits(delta: Tensor) -> Tensor:
    """int32 `(entries,)`: the bits of the magnitudes as fp32, cut and not rounded if they are fp64."""
    magnitude = delta.reshape(-1).abs()
    narrow = magnitude.float()
    bits = narrow.view(torch.int32)
    return bits if magnitude.dtype == torch.float32 else bits - (narrow > magnitude).int()


def _bucket(counts: Tensor, rank: int) -> tuple[int, int]:
    """Bucket of the entry of this rank from above, and its rank among the entries of that bucket.

    Without any entries: the lowest bucket.
    """
    above = counts.flip(0).cumsum(0)
    place = min(int(torch.searchsorted(above, rank)), len(counts) - 1)
    before = int(above[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before
