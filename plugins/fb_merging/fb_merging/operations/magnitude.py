"""Exact magnitude thresholds of whole models, found by streaming: over a sample, then over all of it."""

from __future__ import annotations

import ctypes
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fb_merging.operations import native
from fb_merging.operations.per_model import PerModel, values_of
from fb_merging.operations.sparsify import count_kept, magnitudes_at
from fusionbench_core import Survey, TensorGroup

Bits = NDArray[np.int32]
"""Magnitudes in fp32, their bits read as integers: these order like the numbers."""

SHARE = 64
"""One entry in so many is in the sample."""

SLOTS = 16
"""Parts of the sample; how much they differ tells how far it can be trusted."""

DEVIATIONS = 6.0
"""Standard errors of the sample on either side of its threshold; outside of them lies 1 in 10**4 at most."""

PENDING = 1 << 20
"""Magnitudes kept as they are; more are counted."""

CHUNKS = 256
"""Arrays of them that are put together at a time."""

BUCKETS = 1 << 21
"""Most counters that a model takes."""

_END = 1 << 31
_LOW_BITS = 17
"""Bits of a magnitude that the sample does not look at: it tells numbers apart that differ by 2 %."""


@dataclass(frozen=True)
class MagnitudeThreshold(Survey):
    """The k-th largest magnitude of each model's task vector, over all its tensors.

    The first round looks at a sample, and gives a range in which each threshold lies. The second counts the
    entries above the range and keeps those inside, which are few: memory is bounded, whatever the size of the
    models. Where the sample misled, or the range holds too much, more rounds follow. Counts are integers, so
    the result is exact, and does not depend on any order.

    The result is a list of one threshold a model, in the order of the group's models: the `k`-th largest of
    its `n` magnitudes, `k = count_kept(density, n)`. Keeping all entries at or above it keeps `k` entries,
    and more only if several equal it. Magnitudes in fp64 are cut to fp32 first, so that entries equal the
    threshold which agree with it in their first 24 bits.

    Attributes:
        density: Fraction of the entries to keep, for all models or for each.
        ranges: For each model, the bits between which its threshold is looked for, the upper one excluded;
            empty before the sample is seen.
    """

    density: PerModel
    ranges: tuple[tuple[int, int], ...] = ()

    def observe(self, group: TensorGroup) -> Sample | Tally:
        """The sample's magnitudes, or counts and candidates."""
        library = native.library_for(math.prod(group.piece_shape) * len(group.names))
        pieces = group.stored() if library else None
        if library and pieces is None and self.ranges:  # A sample needs a part of the task vectors only.
            pieces = native.pieces_of(group.deltas)
        if library and pieces and (seen := self.observe_stored(group, library, native.Source(pieces))):
            return seen
        # NaN and Inf are reported as the task vectors are taken.
        if not self.ranges:
            return self._sample(group, [magnitude_bits(delta) for delta in group.part(SHARE).deltas])
        bits = [magnitude_bits(delta) for delta in group.deltas]
        return self._tally(group, [bits_inside(each, *limits) for each, limits in zip(bits, self.ranges)])

    def observe_stored(
        self, group: TensorGroup, library: ctypes.CDLL, source: native.Source
    ) -> Sample | Tally | None:
        """The same of task vectors that are read from `source`, by functions in C; None with NaN and Inf."""
        if self.ranges:
            counted = native.count_inside(library, source, self.ranges)
            return None if counted is None else self._tally(group, counted)
        entries = -(-math.prod(group.piece_shape) // SHARE)
        read = native.read_magnitudes(library, source, entries)
        return None if read is None else self._sample(group, list(read))

    def _sample(self, group: TensorGroup, magnitudes: Sequence[Bits]) -> Sample:
        # Neighbours are alike, so whole pieces go to one slot or another.
        return Sample(group.names, {_slot(group): [bits >> _LOW_BITS for bits in magnitudes]})

    def _tally(self, group: TensorGroup, counted: Sequence[native.Inside]) -> Tally:
        entries = math.prod(group.piece_shape)
        return Tally(
            group.names,
            [
                _Inside(*limits, entries, above, [inside])
                for limits, (inside, above) in zip(self.ranges, counted)
            ],
        )

    def advance(self, total: Sample | Tally | None) -> MagnitudeThreshold | list[float]:
        if total is None:
            return []
        densities = values_of(self.density, total.names, "density")
        if isinstance(total, Sample):
            return replace(self, ranges=tuple(map(_likely_range, total.counts(), densities)))
        found = [inside.select(density) for inside, density in zip(total.counted, densities)]
        if all(stop - start == 1 for start, stop in found):
            bits = np.array([start for start, _ in found], dtype=np.int32)
            return bits.view(np.float32).tolist()
        return replace(self, ranges=tuple(found))


@dataclass
class Sample:
    """Upper halves of sampled magnitudes, by slot and model. Adding adds in place."""

    names: tuple[str, ...]
    digits: dict[int, list[Bits]]
    _counts: NDArray[np.int32] | None = None

    def __add__(self, other: Sample) -> Sample:
        counts = self.counts()
        for slot, each in other.digits.items():
            for model, digits in enumerate(each):
                seen = np.bincount(digits, minlength=counts.shape[2])
                counts[model, slot] += seen.astype(np.int32)
        return self

    def counts(self) -> NDArray[np.int32]:
        """`(models, slots, digits)`."""
        if self._counts is None:
            self._counts = np.zeros((len(self.names), SLOTS, _END >> _LOW_BITS), dtype=np.int32)
            pending, self.digits = self.digits, {}
            self.__add__(Sample(self.names, pending))
        return self._counts


@dataclass
class Tally:
    """What is known of each model's entries. Adding adds in place."""

    names: tuple[str, ...]
    counted: list[_Inside]

    def __add__(self, other: Tally) -> Tally:
        for mine, its in zip(self.counted, other.counted):
            mine.add(its)
        return self


@dataclass
class _Inside:
    """Entries of one model: how many there are, how many lie above a range, and those in it.

    Attributes:
        start: First bits of the range.
        stop: Bits after its last ones.
        entries: Number of all entries.
        above: Number of entries above the range.
        pending: Magnitudes in the range, in chunks.
        counts: By bucket of `2**shift` neighbouring magnitudes, once there are too many to keep.
    """

    start: int
    stop: int
    entries: int
    above: int
    pending: list[Bits] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None

    @property
    def shift(self) -> int:
        return max(0, (self.stop - self.start - 1).bit_length() - (BUCKETS - 1).bit_length())

    def add(self, other: _Inside) -> None:
        """Take over another's entries, of the same range."""
        self.entries += other.entries
        self.above += other.above
        self.pending += other.pending
        if len(self.pending) >= CHUNKS:
            self.pending = [np.concatenate(self.pending)]
            if len(self.pending[0]) > PENDING:
                self._fold()

    def select(self, density: float) -> tuple[int, int]:
        """The range of the threshold: of one number if it is known, else where to look next."""
        rank = count_kept(density, self.entries) - self.above
        inside = sum(map(len, self.pending)) + (0 if self.counts is None else int(self.counts.sum()))
        if rank <= 0 and self.above:
            return self.stop, _END
        if rank > inside:
            return (0, self.start) if self.entries > self.above + inside else (0, 1)
        if self.counts is None:
            bits = np.concatenate(self.pending)
            found = int(np.partition(bits, len(bits) - rank)[len(bits) - rank])
            return found, found + 1
        self._fold()
        above = self.counts[::-1].cumsum()
        bucket = len(self.counts) - 1 - int(np.searchsorted(above, rank))
        first = self.start + (bucket << self.shift)
        return first, min(first + (1 << self.shift), self.stop)

    def _fold(self) -> None:
        bits, self.pending = np.concatenate([*self.pending, np.zeros(0, np.int32)]), []
        size = (self.stop - 1 - self.start >> self.shift) + 1
        counted = np.bincount((bits - np.int32(self.start)) >> self.shift, minlength=size)
        self.counts = counted if self.counts is None else self.counts + counted


def thresholds_of(group: TensorGroup, density: PerModel) -> list[float]:
    """The thresholds of one group by itself."""
    densities = values_of(density, group.names, "density")
    return [threshold_of(delta, density) for delta, density in zip(group.deltas, densities)]


def threshold_of(delta: Tensor, density: float) -> float:
    """The smallest magnitude, in fp32, that is kept of one tensor; 0 of an empty one."""
    entries = delta.numel()
    if not entries:
        return 0.0
    place = entries - count_kept(density, entries)
    if delta.dtype == torch.float32:
        return magnitudes_at(delta, [place])[0]
    bits = magnitude_bits(delta)
    return float(np.partition(bits, place)[place].view(np.float32))


def magnitude_bits(delta: Tensor) -> Bits:
    """`(entries,)`: the bits of the magnitudes as fp32, cut and not rounded if they are fp64."""
    flat = delta.detach().reshape(-1)
    narrow = flat.float()
    bits: Bits = np.bitwise_and(narrow.view(torch.int32).numpy(), np.int32(0x7FFFFFFF))
    if flat.dtype != torch.float32:
        bits -= (narrow.abs() > flat.abs()).int().numpy()
    return bits


def bits_inside(bits: Bits, start: int, stop: int) -> tuple[Bits, int]:
    """Those from `start` to before `stop`, and how many lie beyond."""
    high = bits >= stop if stop < _END else np.zeros(len(bits), dtype=bool)
    low = bits >= start
    above = int(np.count_nonzero(high))
    return bits[np.flatnonzero(np.logical_xor(low, high, out=low))], above


def _slot(group: TensorGroup) -> int:
    """Slot of a piece: by its tensor's name, as most tensors are small, and by its place in it."""
    return zlib.crc32(f"{group.name} {group.start}".encode()) % SLOTS


def _likely_range(counts: NDArray[np.int32], density: float) -> tuple[int, int]:
    """Bits between which the threshold is almost certainly, from a sample's `(slots, digits)`."""
    seen = counts.sum(1)
    used = counts[seen > 0]
    if len(used) < SLOTS:
        return 0, _END
    above = used[:, ::-1].cumsum(1)
    share = above.sum(0) / seen.sum()
    place = min(int(np.searchsorted(share, density)), len(share) - 1)
    each = above[:, place] / used.sum(1)
    margin = DEVIATIONS * float(each.std(ddof=1)) / math.sqrt(SLOTS) + DEVIATIONS / int(seen.sum())
    last = int(np.searchsorted(share, density + margin, side="right"))
    first = int(np.searchsorted(share, density - margin)) if density > margin else 0
    digits = len(share) - 1
    return max(0, digits - last) << _LOW_BITS, (digits - first + 1) << _LOW_BITS
