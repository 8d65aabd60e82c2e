"""CART: centred task vectors of low rank."""

from __future__ import annotations

import math
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import mean
from fb_merging.operations.matrices import MatrixMethod, is_matrix
from fb_merging.operations.svd import (
    Factorization,
    Oversampling,
    PowerIterations,
    leading_triplets,
    sketching,
)
from fb_merging.spectral.records import CART
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(CART)
class Cart(MatrixMethod):
    r"""The average, plus what leads away from it towards each model, cut to its main directions.

    $$\theta = \bar\theta + \lambda \sum_t \operatorname{SVD}_k(\theta_t - \bar\theta), \qquad
      \bar\theta = \frac1T \sum_t \theta_t$$

    Notes:
        $k$ is `rank_fraction` of $\min(m, n)$, rounded up. Without the cut all differences cancel.
        Tensors that are no matrix are averaged. There are no task vectors in it, so the base is not looked
        at.
        `factorization="randomized"` finds the $k$ triplets of each model from a random sketch.

    Reference:
        Choi et al., Revisiting Weight Averaging for Model Merging, 2024, arXiv:2412.12153.
    """

    rank_fraction: float = Field(
        default=0.08, gt=0, le=1, description="fraction of the directions kept of each difference"
    )
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the sum of the differences")
    factorization: Factorization = "exact"
    oversampling: Oversampling = 10
    power_iterations: PowerIterations = 2

    @property
    def capabilities(self) -> Capabilities:
        return sketching(self.record.capabilities, self)

    def merge(self, group: TensorGroup) -> Tensor:
        center = mean(group.models)
        if not is_matrix(group, self.exclude):
            return center
        # Less a hair, as 0.07 * 100 is more than 7.
        rank = math.ceil(self.rank_fraction * min(center.shape) - 1e-9)

        def directions() -> Tensor:
            total = torch.zeros_like(center, dtype=torch.float64)
            for name, model in zip(group.names, group.models):
                total += leading_triplets(
                    model.double() - center, rank, self, partial(group.uniform, name), center.dtype
                ).product()
            return total.to(center.dtype)

        total = group.cached(self, group.models, directions, apart_from=("scaling_factor", "exclude"))
        return torch.add(center, total, alpha=self.scaling_factor)
