"""A checkpoint whose embeddings and heads have their rows in another order, or more or fewer of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo


@dataclass(frozen=True)
class Fill:
    """Rows that are the mean of rows of other checkpoints; zero if there are no donors.

    Attributes:
        rows: Where in the result, `(n,)`, in ascending order.
        donors: Checkpoints with the same tensors, and which of their rows, `(n,)` each.
    """

    rows: Tensor
    donors: tuple[tuple[Checkpoint, Tensor], ...] = ()


@dataclass(frozen=True)
class RowMap:
    """Where each row of the result comes from.

    Attributes:
        own: Row of the checkpoint itself, `(rows,)`; -1 where a fill says it.
        fills: All other rows.
    """

    own: Tensor
    fills: tuple[Fill, ...] = ()


class RowsCheckpoint(Checkpoint):
    """View of `inner` with other rows in some tensors; all else is as it is.

    Args:
        inner: What is seen.
        tensors: Name of a tensor -> its dimension that is rearranged.
        rows: Where the rows come from.
    """

    def __init__(self, inner: Checkpoint, tensors: Mapping[str, int], rows: RowMap) -> None:
        self._inner = inner
        self._tensors = {name: dimension for name, dimension in tensors.items() if name in inner}
        self._rows = rows
        self.location = inner.location

    def keys(self) -> tuple[str, ...]:
        return self._inner.keys()

    def info(self, key: str) -> TensorInfo:
        info = self._inner.info(key)
        if key not in self._tensors:
            return info
        shape = list(info.shape)
        shape[self._tensors[key]] = self._rows.own.numel()
        return TensorInfo(tuple(shape), info.dtype)

    def tensor(self, key: str) -> Tensor:
        if key not in self._tensors:
            return self._inner.tensor(key)
        rows = self._some(key, 0, self._rows.own.numel())
        return rows.movedim(0, self._tensors[key]).contiguous()

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        if key not in self._tensors:
            return self._inner.chunk(key, start, stop)
        if self._tensors[key] != 0:
            return super().chunk(key, start, stop)
        info = self.info(key)
        width = max(1, info.numel // max(1, info.shape[0]))
        stop = min(stop, info.numel)
        first, last = start // width, -(-stop // width)
        skipped = first * width
        return self._some(key, first, last).reshape(-1)[start - skipped : stop - skipped]

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._inner.aliases

    def identity(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr(sorted(self._tensors.items())).encode() + self._rows.own.numpy().tobytes())
        for fill in self._rows.fills:
            digest.update(fill.rows.numpy().tobytes())
            for donor, rows in fill.donors:
                digest.update(donor.identity().encode() + rows.numpy().tobytes())
        return f"{self._inner.identity()}:{digest.hexdigest()}"

    def _some(self, key: str, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of the result, the rearranged dimension in front."""
        own = self._rows.own[first:last]
        table = self._table(self._inner, key)
        rows = table[own.clamp(min=0)]
        for fill in self._rows.fills:
            begin, end = torch.searchsorted(fill.rows, torch.tensor([first, last])).tolist()
            if begin < end:
                rows[fill.rows[begin:end] - first] = self._filled(key, fill, begin, end, table)
        return rows

    def _filled(self, key: str, fill: Fill, begin: int, end: int, like: Tensor) -> Tensor:
        total = torch.zeros((end - begin, *like.shape[1:]), dtype=torch.float64)
        for donor, rows in fill.donors:
            total += self._table(donor, key)[rows[begin:end]].double()
        return (total / max(1, len(fill.donors))).to(like.dtype)

    def _table(self, checkpoint: Checkpoint, key: str) -> Tensor:
        return checkpoint.tensor(key).movedim(self._tensors[key], 0)
