"""Make task vectors sparse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def count_kept(density: float, n: int) -> int:
    """How many of `n` entries a fraction `density` is: rounded to the nearest, but at least one."""
    return max(1, round(density * n))


def keep_largest(delta: Tensor, threshold: float) -> Tensor:
    """`delta` with 0 in place of all entries whose magnitude is below `threshold`, a number of its dtype."""
    # hardshrink is one vectorised pass, over ten times faster than a mask, but it drops entries that equal
    # its bound as well. So the bound is the next smaller number.
    bound, lower = torch.tensor([threshold, -torch.inf], dtype=delta.dtype)
    return functional.hardshrink(delta, float(torch.nextafter(bound, lower)))
