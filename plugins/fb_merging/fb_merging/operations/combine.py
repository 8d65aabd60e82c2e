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
    return add_all(tensors).div_(count.clamp_(min=_below_all(each)))


def elect_sign(deltas: Sequence[Tensor]) -> Tensor:
    """Sign of the sum of all updates, entry by entry: -1, 0 or 1."""
    library = native.library_for(*deltas)
    return native.elect_sign(library, deltas) if library else sign_of_sum(deltas)


def sign_of_sum(deltas: Sequence[Tensor]) -> Tensor:
    """What :func:`elect_sign` gives, by torch."""
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
    library, smallest = native.library_for(sign, *deltas), _below_all(each)
    if library:
        return native.disjoint_mean(library, deltas, sign, each, smallest)
    return mean_of_agreeing(deltas, sign, each, smallest)


def mean_of_agreeing(
    deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float], smallest: float
) -> Tensor:
    """What :func:`disjoint_mean` gives, by torch; divisors below `smallest` are sums of no weight."""
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for agreeing, weight in zip(_agreeing(deltas, sign), weights):
        total += agreeing
        count.add_(agreeing.sign_(), alpha=weight)
    return total.div_(count.clamp_(min=smallest)).mul_(sign)


def disjoint_max(deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """The largest update among those that point in the elected direction; 0 where there are none."""
    largest = torch.zeros_like(sign)
    for agreeing in _agreeing(deltas, sign):
        torch.maximum(largest, agreeing, out=largest)
    return largest.mul_(sign)


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


def _below_all(weights: Sequence[float]) -> float:
    """Above 0, and below each sum of some of the weights, none of which is negative."""
    # A bound of the divisors is one vectorised pass; a mask takes twenty times as long.
    return min((weight for weight in weights if weight), default=1.0) / 2


def _agreeing(deltas: Sequence[Tensor], sign: Tensor) -> Iterator[Tensor]:
    """Magnitudes of each update where it has the elected sign, else 0; one buffer, filled anew each time."""
    scratch = torch.empty_like(sign)
    for delta in deltas:
        yield torch.mul(delta, sign, out=scratch).clamp_(min=0)
