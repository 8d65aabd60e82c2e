"""Merging of task singular vectors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import (
    Factorization,
    Factors,
    Oversampling,
    PowerIterations,
    leading_triplets,
    polar_parts,
    sketching,
)
from fb_merging.spectral.records import TSV_MERGING
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(TSV_MERGING)
class TsvMerging(MatrixMethod):
    r"""Keep the leading singular vectors of each task matrix, and make those of different tasks orthogonal.

    With $\Delta_t = \theta_t - \theta_0 = U_t \Sigma_t V_t^\top$, each cut to the leading
    $k = \min(m, n) / T$ triplets, and $\operatorname{polar}(A)$ the orthogonal factor of $A$:

    $$\theta = \theta_0 + \alpha\,\operatorname{polar}([U_1 \dots U_T])\,
      \operatorname{diag}(\Sigma_1, \dots, \Sigma_T)\,\operatorname{polar}([V_1 \dots V_T])^\top$$

    Notes:
        Tensors that are no matrix get the mean task vector, which $\alpha$ scales too, as in the authors'
        code and in FusionBench. $k$ is rounded down, but is at least 1.
        Triplets of singular value 0 have arbitrary vectors and are left out.
        `factorization="randomized"` finds the $k$ triplets of each task from a random sketch.

    Reference:
        Gargiulo et al., Task Singular Vectors, CVPR 2025, arXiv:2412.00081.
    """

    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")
    factorization: Factorization = "exact"
    oversampling: Oversampling = 10
    power_iterations: PowerIterations = 2

    @property
    def capabilities(self) -> Capabilities:
        return sketching(self.record.capabilities, self)

    def merge(self, group: TensorGroup) -> Tensor:
        def combine(deltas: list[Tensor]) -> Tensor:
            rank = rank_of_each(deltas[0], len(deltas))
            return merge_singular_vectors(
                leading_triplets(delta, rank, self, partial(group.uniform, name))
                for name, delta in zip(group.names, deltas)
            )

        return self.add_update(group, combine, scaling_factor=self.scaling_factor)


def rank_of_each(matrix: Tensor, tasks: int) -> int:
    """How many singular triplets each of so many tasks keeps of matrices of this shape."""
    return max(1, min(matrix.shape) // tasks)


def merge_singular_vectors(factors: Iterable[Factors]) -> Tensor:
    """fp64 `(m, n)`: the triplets of all tasks, their vectors made orthonormal together."""
    each = list(factors)
    s = torch.cat([one.s for one in each])
    u, vh = torch.cat([one.u for one in each], dim=1), torch.cat([one.vh for one in each])
    del each  # Twice the memory otherwise, where it is scarcest.
    (*left, last), (right, *rest) = polar_parts(u)[0], polar_parts(vh)[0]
    return torch.linalg.multi_dot([*left, last * s, right, *rest])
