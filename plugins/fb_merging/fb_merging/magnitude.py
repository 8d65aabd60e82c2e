"""Exact magnitude thresholds of whole models, found by streaming over them a few times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fb_merging.sparsify import count_kept
from fusionbench_core import Survey, TensorGroup

_DIGITS = {torch.float32: (16, 15), torch.float64: (16, 16, 16, 15)}
"""Bits of a magnitude, most significant first, that each round looks at. They add up to all but the sign."""

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass(frozen=True)
class Counts:
    """What one or more groups contribute to a round.

    Attributes:
        counts: int64 `(models, buckets)`: entries by the digit of their magnitude, among those whose
            higher digits are the known ones. Integers, so that sums are exact in any order.
        too_wide: Whether some task vector does not fit the dtype whose digits are counted.
    """

    counts: Tensor
    too_wide: bool

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.counts + other.counts, self.too_wide or other.too_wide)


@dataclass(frozen=True)
class MagnitudeThreshold(Survey):
    """Radix selection of the k-th largest magnitude of each model's task vector, over all its tensors.

    The bits of a non-negative float, read as an integer, order like the float. So a histogram of the
    highest bits tells the bucket of the k-th largest, a second histogram within that bucket tells its next
    bits, and so on: memory is one histogram a model, whatever the size of the models.

    The result is a list of one threshold a model, in the order of the group's models: the `k`-th largest of
    its `n` magnitudes, `k = count_kept(density, n)`. Keeping all entries at or above it keeps `k` entries,
    and more only if several equal it.

    Attributes:
        density: Fraction of the entries to keep.
        dtype: Whose digits are counted. The survey begins with fp32, and begins again with fp64 if a task
            vector turns out to be fp64.
        level: How many digits are known.
        prefix: For each model, the digits of the threshold found so far, as an integer.
        rank: For each model, the threshold's rank, from the largest down and counted from 1, among the
            entries with these digits.
    """

    density: float
    dtype: torch.dtype = torch.float32
    level: int = 0
    prefix: tuple[int, ...] = ()
    rank: tuple[int, ...] = ()

    def observe(self, group: TensorGroup) -> Counts:
        too_wide = self.dtype == torch.float32 and any(delta.dtype != self.dtype for delta in group.deltas)
        rows = [self._count(delta, model) for model, delta in enumerate(group.deltas)]
        return Counts(torch.stack(rows), too_wide)

    def advance(self, total: Counts | None) -> MagnitudeThreshold | list[float]:
        if total is None:
            return []
        if total.too_wide:
            return MagnitudeThreshold(self.density, torch.float64)
        prefix, rank = [], []
        for model, counts in enumerate(total.counts):
            wanted = self.rank[model] if self.level else count_kept(self.density, int(counts.sum()))
            digit, wanted = _bucket(counts, wanted)
            prefix.append((self.prefix[model] << self._digit if self.level else 0) | digit)
            rank.append(wanted)
        if self.level + 1 == len(_DIGITS[self.dtype]):
            return torch.tensor(prefix, dtype=_BITS[self.dtype]).view(self.dtype).tolist()
        return replace(self, level=self.level + 1, prefix=tuple(prefix), rank=tuple(rank))

    @property
    def _digit(self) -> int:
        return _DIGITS[self.dtype][self.level]

    def _count(self, delta: Tensor, model: int) -> Tensor:
        bits = delta.to(self.dtype).abs().reshape(-1).view(_BITS[self.dtype])
        below = sum(_DIGITS[self.dtype][self.level + 1 :])
        buckets = 1 << self._digit
        first = self.prefix[model] << (below + self._digit) if self.level else 0
        # Entries outside of the known digits' range go to two buckets of their own, which are dropped:
        # much cheaper than selecting those inside.
        digits = ((bits - first) >> below).clamp_(-1, buckets).add_(1)
        return torch.bincount(digits, minlength=buckets + 2)[1:-1]


def thresholds_of(group: TensorGroup, density: float) -> list[float]:
    """The thresholds of one group by itself, found in the same way."""
    survey = MagnitudeThreshold(density)
    while isinstance(survey, MagnitudeThreshold):
        survey = survey.advance(survey.observe(group))
    return survey


def _bucket(counts: Tensor, rank: int) -> tuple[int, int]:
    """Bucket of the entry of this rank from above, and its rank among the entries of that bucket.

    Without any entries: the lowest bucket.
    """
    above = counts.flip(0).cumsum(0)
    place = min(int(torch.searchsorted(above, rank)), len(counts) - 1)
    before = int(above[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before
