"""Make task vectors sparse."""

from __future__ import annotations

import torch
from torch import Tensor


def count_kept(density: float, n: int) -> int:
    """How many of `n` entries a fraction `density` is: rounded to the nearest, but at least one."""
    return max(1, round(density * n))


def keep_largest(delta: Tensor, threshold: float) -> Tensor:
    """`delta` with 0 in place of all entries whose magnitude is below `threshold`."""
    bound = torch.tensor(threshold, dtype=delta.dtype)
    if float(bound) < threshold:
        # A threshold found among fp64 entries may lie between two fp32 numbers: the upper one is the bound.
        bound = torch.nextafter(bound, torch.tensor(torch.inf, dtype=delta.dtype))
    return delta.masked_fill(delta.abs() < bound, 0)
