"""How tensors are cut into pieces: small for the cache, large for the interpreter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fusionbench_core.checkpoints import TensorInfo
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.randomness import BLOCK

TOGETHER = 5 << 18
"""Entries of one piece of all models together: so memory does not grow with the number of models."""

LARGEST, SMALLEST = 1 << 18, 1 << 12
"""Entries of a piece, 1 MiB in fp32 at most. Larger ones take more memory, and hardly save time; smaller ones
make calls so short that threads spend their time handing the interpreter to each other."""


@dataclass(frozen=True)
class Piece:
    """Entries `start` to `stop` of the flattened tensor of one step, seen in `shape`."""

    step: PlanStep
    start: int
    stop: int
    shape: tuple[int, ...]

    @property
    def last(self) -> bool:
        return self.stop == self.step.info.numel


def piece_size(models: int) -> int:
    """Entries of a piece where so many models are read together, the base counted."""
    share = TOGETHER // models
    # Random numbers are drawn block by block, so whole blocks waste none.
    return min(LARGEST, share // BLOCK * BLOCK or max(share, SMALLEST))


def piece_numel(info: TensorInfo, locality: str, size: int) -> int:
    """Most entries of one piece of such a tensor, of about `size` where the locality lets it be cut."""
    if locality == "element":
        return min(info.numel, size)
    if locality == "row" and len(info.shape) > 1:
        return min(info.numel, max(1, size // max(1, _row(info))) * _row(info))
    return info.numel


def pieces(info: TensorInfo, locality: str, size: int) -> int:
    """How many pieces such a tensor is cut into."""
    return -(-info.numel // max(piece_numel(info, locality, size), 1))


def cut(step: PlanStep, locality: str, size: int) -> Iterator[Piece]:
    """The pieces of a step, in order. An empty tensor is one empty piece."""
    info = step.info
    if step.action != "merge":
        locality = "element"
    size = piece_numel(info, locality, size)
    for start in range(0, max(info.numel, 1), max(size, 1)):
        stop = min(start + size, info.numel)
        yield Piece(step, start, stop, _shape(info, locality, start, stop))


def _row(info: TensorInfo) -> int:
    return math.prod(info.shape[1:])


def _shape(info: TensorInfo, locality: str, start: int, stop: int) -> tuple[int, ...]:
    if locality == "element":
        return (stop - start,)
    if locality == "row" and len(info.shape) > 1 and info.numel:
        return ((stop - start) // _row(info), *info.shape[1:])
    return info.shape
