"""The update that interferes least with all tasks, where each task's inputs are read off its task matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fb_merging.operations.svd import svd


def least_interference(deltas: Sequence[Tensor], weights: Sequence[float], ridge: float = 0.0) -> Tensor:
    r"""The smallest minimiser of $\sum_t w_t \|(\Delta - \Delta_t) \Delta_t^\top\|_F^2 + \rho\|\Delta\|_F^2$.

    It is $\left(\sum_t w_t \Delta_t G_t\right) \left(\sum_t w_t G_t + \rho I\right)^{+}$ with
    $G_t = \Delta_t^\top \Delta_t$. The stack of all $\sqrt{w_t} \Delta_t$ is factorised, never the sum of the
    $G_t$: squaring would lose half of the digits.

    Args:
        deltas: $\Delta_t$, `(m, n)` each.
        weights: $w_t$, not negative.
        ridge: $\rho$.

    Returns:
        fp64 `(m, n)`.
    """
    m, n = deltas[0].shape
    stack = torch.empty(m * len(deltas), n, dtype=torch.float64)
    for delta, weight, rows in zip(deltas, weights, stack.split(m)):
        torch.mul(delta.double(), weight**0.5, out=rows)
    factors = svd(stack)
    left = torch.zeros(m, len(factors.s), dtype=torch.float64)
    for delta, rows, u in zip(deltas, stack.split(m), factors.u.split(m)):
        left += delta.double() @ (rows.T @ u)
    return (left * (factors.s / (factors.s.square() + ridge))) @ factors.vh
