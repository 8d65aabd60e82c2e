"""Which entries of a merged task vector each task uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def tall_mask(delta: Tensor, merged: Tensor, tall_lambda: float) -> Tensor:
    """Boolean: where a task's update outweighs what the other tasks did to it (TALL-mask).

    $m_t = 1[|\\tau_t| > \\lambda_t\\,|\\tau_{\\mathrm{MTL}} - \\tau_t|]$, with the merged task vector
    $\\tau_{\\mathrm{MTL}}$.
    """
    return delta.abs() > tall_lambda * (merged - delta).abs()


def agreement(masks: Sequence[Tensor]) -> Tensor:
    """int64: how many of the masks hold, entry by entry."""
    total = torch.zeros_like(masks[0], dtype=torch.int64)
    for mask in masks:
        total += mask
    return total
