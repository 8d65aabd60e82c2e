"""RegMean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.data_driven.matching import statistic_of
from fb_merging.data_driven.records import REGMEAN
from fb_merging.operations.combine import mean
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(REGMEAN)
class RegMean(TensorMethod):
    r"""The linear weights that best reproduce, in least squares, every model's outputs on its own inputs.

    For a linear weight $W_t$, shape `(out, in)`, and the Gram matrix $G_t$, `(in, in)`, of its inputs:

    $$W^\top = \Big(\sum_t \hat G_t\Big)^{-1} \sum_t \hat G_t W_t^\top, \qquad
      \hat G_t = \alpha\, G_t + (1 - \alpha)\,\mathrm{diag}(G_t)$$

    All other tensors are averaged.

    Notes:
        The system is solved in fp64 for the difference from the simple average $\bar W$, which is the same
        thing where there is one solution: $W^\top = \bar W^\top + (\sum \hat G_t)^{-1} \sum \hat G_t
        (W_t - \bar W)^\top$. Where there are many, because input features are dead in all models or
        $\alpha = 1$ and there are fewer tokens than features, it takes the one nearest the average.
        $\alpha$: the paper finds 0.9 best for its encoders and 0.1 for T5; FusionBench takes 0.95 for CLIP
        and 0.6 for GPT-2.

    Reference:
        Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023,
        arXiv:2212.09849.
    """

    reduce_non_diagonal_ratio: float = Field(
        default=0.9, ge=0, le=1, description="α: multiplies the off-diagonal entries of the Gram matrices"
    )
    samples: int = Field(
        default=256, gt=0, description="samples a task that the Gram matrices are collected on"
    )
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return {"gram": {"samples": self.samples, "split": self.split}}

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        if len(shape) != 2 or 0 in shape:
            return 2 * models + 5
        # Statistics of inputs are square, and can be larger than the weight.
        m, n = shape
        return super().scratch(name, shape, models) * max(1.0, n / m)

    def merge(self, group: TensorGroup) -> Tensor:
        size = group.shape[1] if len(group.shape) == 2 else None
        grams = statistic_of(group, "regmean", "gram", (size, size))
        if not grams or 0 in group.shape:
            return mean(group.models)
        return solve_regression(group.models, grams, self.reduce_non_diagonal_ratio)


def solve_regression(weights: Sequence[Tensor], grams: Sequence[Tensor], ratio: float) -> Tensor:
    r"""The weight $W$ that makes $\sum_t \mathrm{tr}\,(W - W_t)\, \hat G_t\, (W - W_t)^\top$ smallest.

    Args:
        weights: $W_t$, each `(out, in)`.
        grams: $G_t$, each `(in, in)`.
        ratio: Multiplies the off-diagonal entries of the Gram matrices.
    """
    average = mean(weights)
    system = torch.zeros(grams[0].shape, dtype=torch.float64, device=average.device)
    target = torch.zeros((average.shape[1], average.shape[0]), dtype=torch.float64, device=average.device)
    for gram, weight in zip(grams, weights):
        gram = _shrink(gram.to(average.device), ratio)
        system += gram
        target += gram @ (weight - average).T.double()
    return average + solve_nearest_zero(system, target).T.to(average.dtype)


def solve_nearest_zero(system: Tensor, target: Tensor) -> Tensor:
    """The smallest solution $X$ of $S X = B$, in the metric of the diagonal of $S$.

    Args:
        system: $S$, fp64 `(n, n)`, symmetric and positive semi-definite.
        target: $B$, fp64 `(n, m)`, in the range of $S$.

    Returns:
        $X$, fp64 `(n, m)`; rows of features whose diagonal entry is 0 are 0.
    """
    # Scaled to a unit diagonal, a system with off-diagonals shrunk by α has no eigenvalue below 1 - α:
    # Cholesky is safe unless α is 1, whatever the features' magnitudes.
    alive = system.diagonal() > 0
    scale = torch.where(alive, system.diagonal(), 1).rsqrt()
    unit = system * scale[:, None] * scale
    unit.diagonal().masked_fill_(~alive, 1)
    right = target * scale[:, None]
    factor, failed = torch.linalg.cholesky_ex(unit)
    smallest = len(unit) * torch.finfo(unit.dtype).eps
    if not failed and float(factor.diagonal().square().min()) > smallest:
        solution = torch.cholesky_solve(right, factor)
    else:
        solution = torch.linalg.pinv(unit, rtol=smallest, hermitian=True) @ right
    return solution * scale[:, None]


def _shrink(gram: Tensor, ratio: float) -> Tensor:
    """A copy in fp64, its off-diagonal entries multiplied by `ratio`."""
    result = gram.double() * ratio
    result.diagonal().copy_(gram.diagonal())
    return result
