"""Adaptive projective gradient descent on task vectors: what DOGE methods share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fb_merging.operations.adam import Adam
from fb_merging.operations.combine import weighted_sum
from fb_merging.operations.svd import column_basis, svd


def shared_change(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    *,
    subspace: float,
    iterations: int,
    learning_rate: float,
) -> Tensor:
    r"""A change $\Delta$ of all task matrices that makes them conflict less, outside of what they share.

    Steps of Adam, with the gradient's part in the shared subspace taken out, on

    $$\sum_t \sum_r \Big\langle \tau_{t,r},\ \tau_{t,r} - \sum_i \lambda_i (\tau_{i,r} + \Delta_r)
      \Big\rangle^2$$

    where r runs over rows.

    Args:
        deltas: Task matrices $\tau_t$, each `(out, in)`.
        weights: $\lambda_t$.
        subspace: Fraction of the singular directions that the shared subspace has.
        iterations: Steps of Adam.
        learning_rate: Of Adam.
    """
    merged, total = weighted_sum(deltas, weights), sum(weights)
    wanted = [(delta * (delta - merged)).sum(1) for delta in deltas]
    basis = shared_directions(deltas, subspace).to(merged.dtype)
    change = torch.zeros_like(merged)
    adam = Adam(change, learning_rate)
    for _ in range(iterations):
        gradient = torch.zeros_like(change)
        for delta, target in zip(deltas, wanted):
            error = target - total * (delta * change).sum(1)
            gradient.add_(delta * error[:, None], alpha=-2 * total)
        gradient.sub_(basis @ (basis.T @ gradient))
        adam.step(change, gradient)
    return change


def shared_directions(deltas: Sequence[Tensor], fraction: float) -> Tensor:
    """Leading left singular vectors of the leading ones of all task matrices, `(out, k)`, fp64.

    Each of T matrices of rank at most r gives its r / T leading ones; k is the fraction of r.
    """
    rank = min(deltas[0].shape)
    leading = [svd(delta).top(rank // len(deltas)).u for delta in deltas]
    if not any(each.numel() for each in leading):
        return torch.zeros(deltas[0].shape[0], 0, dtype=torch.float64)
    return column_basis(leading)[:, : int(rank * fraction)]
