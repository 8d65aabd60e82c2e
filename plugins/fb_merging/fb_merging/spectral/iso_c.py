"""Isotropic merging in the common subspace."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod, wide_sum
from fb_merging.operations.svd import polar_and_singular_values
from fb_merging.spectral.records import ISO_C
from fusionbench_core import TensorGroup, implements


@implements(ISO_C)
class IsoC(MatrixMethod):
    r"""Add all task matrices up, and make all singular values of the sum equal.

    $$\theta = \theta_0 + \alpha\,\bar\sigma\,U V^\top, \qquad
      U \operatorname{diag}(\sigma_1, \dots, \sigma_r)\,V^\top = \sum_t (\theta_t - \theta_0), \qquad
      \bar\sigma = \frac1r \sum_{i=1}^r \sigma_i$$

    Notes:
        Tensors that are no matrix get the mean task vector, which $\alpha$ scales too, as in the authors'
        code and in FusionBench.
        $r$ is the rank of the sum. The authors' code always takes $\min(m, n)$, the same unless the sum has
        no full rank; there it fills the null space with arbitrary vectors, which are left out here.
        The authors choose $\alpha$ on validation data.

    Reference:
        Marczak et al., No Task Left Behind, ICML 2025, arXiv:2502.04959.
    """

    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(
            group,
            lambda deltas: flatten_spectrum(wide_sum(deltas)),
            scaling_factor=self.scaling_factor,
        )


def flatten_spectrum(matrix: Tensor) -> Tensor:
    """fp64 `(m, n)`: the matrix with the mean in place of each of its singular values that is not 0."""
    isometry, s = polar_and_singular_values(matrix)
    return isometry.mul_(float(s.mean()) if len(s) else 0.0)
