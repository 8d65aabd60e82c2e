"""Subspace boosting."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import LeftAlone, is_matrix
from fb_merging.operations.svd import rounding_of_differences, svd
from fb_merging.post.post_operation import PostOperation
from fb_merging.post.records import SUBSPACE_BOOSTING
from fusionbench_core import TensorGroup, implements


@implements(SUBSPACE_BOOSTING)
class SubspaceBoosting(PostOperation):
    r"""Raise the small singular values of each merged task matrix.

    With $U \operatorname{diag}(\sigma_1 \ge \sigma_2 \ge \dots)\,V^\top$ the merged task matrix:

    $$W = W_0 + U \operatorname{diag}\big(\max(\sigma_i, \sigma_k)\big)\,V^\top, \qquad
      k = \min\Big\{ j : \sum_{i \le j} \sigma_i \ge \beta \sum_i \sigma_i \Big\}$$

    Notes:
        $\beta$ is a fraction of the sum of all singular values, from the largest on; 0 raises all to the
        largest, 1 changes nothing. 0.01, the authors' default, often means $k = 1$ for large matrices.
        Tensors that are no matrix, and those named in `exclude`, stay as the inner method merged them. The
        paper changes the matrices of attention and of feed-forward layers only, so exclude embeddings and
        heads; it takes fused projections of queries, keys and values apart, which is not done here.
        Singular values no larger than the rounding errors of the weights are not raised: their vectors are
        arbitrary.

    Reference:
        Skorobogat et al., Subspace-Boosted Model Merging, 2025, arXiv:2506.16506.
    """

    own_scratch: ClassVar[tuple[float, float]] = (0, 20)

    beta: float = Field(
        default=0.01, ge=0, le=1, description="β: fraction of the sum of singular values that stays as it is"
    )
    exclude: LeftAlone = ()

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return self.method.merge(group)
        base, update = self.merged(group)
        return base + raise_spectrum(update, self.beta, rounding_of_differences(base))


def raise_spectrum(matrix: Tensor, beta: float, rounding: float) -> Tensor:
    """fp64 `(m, n)`: singular values above `rounding` raised to the first that reaches `beta`."""
    factors = svd(matrix)
    if not len(factors.s):
        return torch.zeros_like(matrix, dtype=torch.float64)
    running = factors.s.cumsum(0)
    level = factors.s[int((running < beta * running[-1]).sum())]
    raised = torch.where(factors.s > rounding, factors.s.clamp(min=float(level)), factors.s)
    return (factors.u * raised) @ factors.vh
