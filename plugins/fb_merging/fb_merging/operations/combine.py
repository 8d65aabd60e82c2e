"""Combine several tensors of one shape into one: sums, means, and TIES' sign election.

Every function takes a non-empty sequence of tensors of one shape and gives a new tensor of that shape;
inputs are not written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fb_merging.operations import native
from fb_merging.operations.per_model import below_all


def add_all(tensors: Sequence[Tensor]) -> Tensor:
    """$\\sum_i x_i$, added in the order given."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """$\\frac1n \\sum_i x_i$."""
    return add_all(tensors).div_(len(tensors))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """$\\sum_i w_i x_i$."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:]):
        total.add_(tensor, alpha=weight)
    return total


def largest_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Of each entry, the number of largest magnitude; the positive one of a number and its negative."""
    high, low = tensors[0].clone(), tensors[0].clone()
    for tensor in tensors[1:]:
        torch.maximum(high, tensor, out=high)
        torch.minimum(low, tensor, out=low)
    return torch.where(high >= -low, high, low)


def mean_of_active(tensors: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The sum over the weights of those that are not 0, entry by entry; 0 where all are."""
    each = [abs(weight) for weight in weights or [1.0] * len(tensors)]
    count, scratch = torch.zeros_like(tensors[0]), torch.empty_like(tensors[0])
    for tensor, weight in zip(tensors, each):
        count.add_(torch.sign(tensor, out=scratch).abs_(), alpha=weight)
    return add_all(tensors).div_(count.clamp_(min=below_all(each)))


def merge_elected(
    deltas: Sequence[Tensor], merge_func: str, weights: Sequence[float] | None = None
) -> Tensor:
    """Elect a sign for each entry, and merge the updates that have it.

    Args:
        deltas: Task vectors, of one shape, multiplied by their weights.
        merge_func: `mean`, `sum` or `max` of what agrees.
        weights: The weights, for the mean; see :func:`disjoint_mean`.
    """
    if (pieces := native.pieces_of(deltas)) and (
        library := native.library_for(pieces.entries * pieces.models)
    ):
        merged = native.trim_and_elect(library, native.Source(pieces), merge_func, weights=weights)
        if merged is not None:
            return merged.view(deltas[0].shape)
    return elect_and_merge(deltas, merge_func, weights)


def elect_and_merge(
    deltas: Sequence[Tensor], merge_func: str, weights: Sequence[float] | None = None
) -> Tensor:
    """What :func:`merge_elected` gives, by torch."""
    return DISJOINT[merge_func](deltas, elect_sign(deltas), weights)


def elect_sign(deltas: Sequence[Tensor]) -> Tensor:
    """Sign of the sum of all updates, entry by entry: -1, 0 or 1."""
    return add_all(deltas).sign_()


def disjoint_sum(deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Sum of the updates that point in the elected direction; 0 where none was elected."""
    total = torch.zeros_like(sign)
    for agreeing in _agreeing(deltas, sign):
        total += agreeing
    return total.mul_(sign)


def disjoint_mean(deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Mean over the updates that point in the elected direction; 0 where there are none.

    With `weights`, which the updates have been multiplied by already: their sum over the sum of the weights
    (without sign) of those that agree.
    """
    each = [abs(weight) for weight in weights or [1.0] * len(deltas)]
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for agreeing, weight in zip(_agreeing(deltas, sign), each):
        total += agreeing
        count.add_(agreeing.sign_(), alpha=weight)
    return total.div_(count.clamp_(min=below_all(each))).mul_(sign)


def disjoint_max(deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """The largest update among those that point in the elected direction; 0 where there are none."""
    largest = torch.zeros_like(sign)
    for agreeing in _agreeing(deltas, sign):
        torch.maximum(largest, agreeing, out=largest)
    # Of 0 and -0 either can be the larger one; 0 is added so that none is negative.
    return largest.add_(0.0).mul_(sign)


class DisjointMerge(Protocol):
    def __call__(
        self, deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None = None
    ) -> Tensor: ...


DISJOINT: dict[str, DisjointMerge] = {
    "mean": disjoint_mean,
    "sum": disjoint_sum,
    "max": disjoint_max,
}
"""Name -> how updates of one sign are merged."""


def _agreeing(deltas: Sequence[Tensor], sign: Tensor) -> Iterator[Tensor]:
    """Magnitudes of each update where it has the elected sign, else 0; one buffer, filled anew each time."""
    scratch = torch.empty_like(sign)
    for delta in deltas:
        yield torch.mul(delta, sign, out=scratch).clamp_(min=0)
