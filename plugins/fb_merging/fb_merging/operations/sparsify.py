"""Make task vectors sparse.

Every function gives a new tensor of the shape of `delta`, which is not written to.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fb_merging.operations.vectors import l1_norm

Rescale = Literal["probability", "l1", "none"]
"""What becomes of kept entries: divided by the probability to be kept, so that the expectation stays; scaled
so that the tensor's L1 norm stays; or left as they are."""


def count_kept(density: float, n: int) -> int:
    """How many of `n` entries a fraction `density` is: rounded to the nearest, but at least one."""
    return max(1, round(density * n))


def keep_largest(delta: Tensor, threshold: float) -> Tensor:
    """`delta` with 0 in place of all entries whose magnitude is below `threshold`, a number of its dtype."""
    # hardshrink is one vectorised pass, over ten times faster than a mask, but it drops entries that equal
    # its bound as well. So the bound is the next smaller number.
    bound, lower = torch.tensor([threshold, -torch.inf], dtype=delta.dtype)
    return functional.hardshrink(delta, float(torch.nextafter(bound, lower)))


def keep_band(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Drop the fraction `gamma` of largest magnitudes, then keep the fraction `density` of largest ones left.

    `density` comes first: with `density + gamma` above 1, less than `gamma` is dropped. Entries that equal a
    bound are kept.
    """
    n = delta.numel()
    if n == 0 or density == 1:
        return delta.clone()
    kept = count_kept(density, n)
    dropped = min(round(gamma * n), n - kept)
    magnitude = delta.abs().reshape(-1)
    lowest = float(magnitude.kthvalue(n - dropped - kept + 1).values)
    largest = float(magnitude.kthvalue(n - dropped).values)
    return keep_largest(delta, lowest).masked_fill_(delta.abs() > largest, 0)


def drop_at_random(delta: Tensor, uniform: Tensor, probability: Tensor | float, rescale: Rescale) -> Tensor:
    """Keep every entry with its `probability`: where `uniform`, drawn from [0, 1), is below it."""
    kept = torch.where(uniform < probability, delta, 0)
    return kept.div_(probability) if rescale == "probability" else restore_l1(kept, delta, rescale)


def rank_probability(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Probabilities from `density - epsilon` to `density + epsilon`, in steps by the rank of the magnitude.

    Entries are ranked within the last dimension; equal magnitudes by their position. A single entry gets
    `density`.
    """
    n = delta.shape[-1]
    if n == 1:
        return torch.full_like(delta, density)
    steps = torch.linspace(density - epsilon, density + epsilon, n, dtype=delta.dtype)
    order = delta.abs().argsort(dim=-1, stable=True)
    return torch.empty_like(delta).scatter_(-1, order, steps.expand_as(delta))


def restore_l1(kept: Tensor, delta: Tensor, rescale: Rescale) -> Tensor:
    """`kept`, scaled in place to the L1 norm of `delta` if `rescale` is "l1" and anything was kept."""
    if rescale == "l1":
        remaining = l1_norm(kept)
        kept.mul_(l1_norm(delta) / remaining if remaining else 1.0)
    return kept
