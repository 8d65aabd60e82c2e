"""DOP: continual merging by dual orthogonal projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.continual.records import DOP
from fb_merging.operations.adam import Adam
from fb_merging.operations.combine import mean
from fb_merging.operations.matrices import MatrixMethod, is_matrix
from fb_merging.operations.svd import svd
from fusionbench_core import TensorGroup, implements


@implements(DOP)
class Dop(MatrixMethod):
    r"""Merge models one by one, each time as close as can be to the merged and to the new one where they act.

    From the mean of the merged weights $\theta_1$ and the new ones $\theta_2$, steps of Adam on
    $a_1 L_1 + a_2 L_2$ for every matrix, with $U_i \Sigma_i V_i^\top = \theta_i - \theta_0$:

    $$L_i(\theta) = \|\Sigma_i U_i^\top (\theta - \theta_i)\|_F^2 + \|(\theta - \theta_i) V_i \Sigma_i\|_F^2$$

    The weights $a$ follow, by a moving average, those which make the norm of $\sum_i a_i \nabla L_i / L_i$
    smallest among all $a_1 + a_2 = 1$, $a_i \ge 0$ (multiple-gradient descent).

    Notes:
        Models arrive in the order of the pool, the first one is taken as it is: to add models to an earlier
        result, put that first.
        Tensors that are no matrix are the mean of the merged and of the new one.
        Defaults are those of the authors' preset in FusionBench. There the triplet that reaches
        `svd_epsilon` is left out, with which updates of rank 1 would have no loss, and the weights that
        make the norm smallest stay 0.001 away from 0 and 1.
        FusionBench shuffles the models by default.
        Gradients are in closed form. Three fourths of the time go into the four products of matrices that a
        step takes: a matrix of 768 x 768 costs a core about 10 s for each new model. Fewer `iterations` cost
        less in proportion.

    Reference:
        Yang et al., Continual Model Merging without Data: Dual Projections for Balancing Stability and
        Plasticity, NeurIPS 2025.
    """

    iterations: int = Field(default=200, ge=0, description="steps of Adam for each new model")
    learning_rate: float = Field(default=1e-4, gt=0, description="step size of Adam")
    mgda: bool = Field(default=True, description="follow multiple-gradient descent; false: alpha stays")
    alpha: float = Field(default=0.8, ge=0, le=1, description="first weight of the loss of what is merged")
    ema_beta: float = Field(default=0.999, ge=0, le=1, description="how much of the weights each step keeps")
    svd_epsilon: float = Field(
        default=0.99999, gt=0, le=1, description="fraction of the sum of the singular values to project on"
    )
    svd_proj_space: Literal["uv", "u", "v"] = Field(
        default="uv", description="singular vectors to project on: left, right or both"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """Few steps."""
        return {"iterations": 4}

    def merge(self, group: TensorGroup) -> Tensor:
        merged = group.models[0]
        matrix = is_matrix(group, self.exclude)
        for model in group.models[1:]:
            merged = self._balance(merged, model, group.base) if matrix else mean([merged, model])
        return merged

    def _balance(self, merged: Tensor, model: Tensor, base: Tensor) -> Tensor:
        if torch.equal(merged, model):
            return merged
        start = mean([merged, model])
        losses = [self._loss(weights, start, base) for weights in (merged, model)]
        change = torch.zeros_like(start)
        adam, share = Adam(change, self.learning_rate), self.alpha
        for _ in range(self.iterations):
            (first, one), (second, other) = (loss(change) for loss in losses)
            if self.mgda:
                found = smallest_norm((first, second), (one, other))
                share = self.ema_beta * share + (1 - self.ema_beta) * found
            adam.step(change, other.lerp_(one, share))
        return start + change

    def _loss(self, weights: Tensor, start: Tensor, base: Tensor) -> ProjectedDistance:
        factors = svd(weights - base)
        share = factors.s.cumsum(0) / factors.s.sum()
        factors = factors.top(int((share < self.svd_epsilon).sum()) + 1)
        left, right = factors.u * factors.s, factors.vh.T * factors.s
        return ProjectedDistance(
            apart=start - weights,
            left=SquaredFactor.of(left.to(start.dtype)) if "u" in self.svd_proj_space else None,
            right=SquaredFactor.of(right.to(start.dtype)) if "v" in self.svd_proj_space else None,
        )


@dataclass(frozen=True)
class SquaredFactor:
    r"""$F F^\top$, multiplied out only where that makes it smaller.

    Attributes:
        factor: $F$ `(m, k)`.
        product: $F F^\top$ `(m, m)`, or None.
    """

    factor: Tensor
    product: Tensor | None

    @classmethod
    def of(cls, factor: Tensor) -> SquaredFactor:
        return cls(factor, factor @ factor.T if len(factor) <= 2 * factor.shape[1] else None)

    def left_of(self, matrix: Tensor) -> Tensor:
        r"""$F F^\top M$."""
        if self.product is not None:
            return self.product @ matrix
        return self.factor @ (self.factor.T @ matrix)

    def add_right_of(self, matrix: Tensor, total: Tensor) -> None:
        r"""Add $M F F^\top$ to `total`."""
        if self.product is not None:
            total.addmm_(matrix, self.product)
        else:
            total.addmm_(matrix @ self.factor, self.factor.T)


@dataclass(frozen=True)
class ProjectedDistance:
    r"""$\langle E, L E + E R \rangle$ of $E = \theta - \theta_i$, as a function of $\theta$'s change.

    Attributes:
        apart: $E$ before any change, `(m, n)`.
        left: $L = U \Sigma^2 U^\top$, `(m, m)`, or None to leave this part out.
        right: $R = V \Sigma^2 V^\top$, `(n, n)`, or None.
    """

    apart: Tensor
    left: SquaredFactor | None
    right: SquaredFactor | None

    def __call__(self, change: Tensor) -> tuple[float, Tensor]:
        """The value and its gradient `(m, n)`."""
        apart = self.apart + change
        half = self.left.left_of(apart) if self.left else torch.zeros_like(apart)
        if self.right:
            self.right.add_right_of(apart, half)
        return inner(apart, half), half.mul_(2)


def smallest_norm(values: tuple[float, float], gradients: tuple[Tensor, Tensor]) -> float:
    """The weight of the first of two gradients, each over its loss, whose convex combination is shortest."""
    one, other = (
        gradient / value if value > 0 else torch.zeros_like(gradient)
        for value, gradient in zip(values, gradients)
    )
    apart = other - one
    length = inner(apart, apart)
    return min(1.0, max(0.0, inner(other, apart) / length)) if length else 0.5


def inner(a: Tensor, b: Tensor) -> float:
    """Inner product of two matrices, each row in their dtype, the rows' sum in fp64."""
    return float((a * b).sum(-1).double().sum())
