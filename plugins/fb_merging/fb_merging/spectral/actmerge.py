"""Merging by covariances estimated from the task matrices."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.operations.interference import least_interference
from fb_merging.operations.matrices import MatrixMethod
from fb_merging.spectral.records import ACTMERGE
from fusionbench_core import TensorGroup, implements


@implements(ACTMERGE)
class ActMerge(MatrixMethod):
    r"""The linear weights that best reproduce every model's outputs, inputs guessed from the task matrices.

    RegMean with $G_t = \Delta_t^\top \Delta_t$ in place of the covariance of the inputs,
    $\Delta_t = \theta_t - \theta_0$:

    $$\theta = \theta_0 + \alpha \left(\sum_t \Delta_t G_t\right) \left(\sum_t G_t\right)^{+}$$

    Notes:
        This is `merge_actmat` of the authors' code (github.com/marawangamal/actmat), which averages tensors
        that are no matrix, too, and has no $\alpha$. It inverts $\sum_t G_t$ in fp32; the task matrices are
        factorised instead here, in fp64.
        It differs from the closed form of WUDI only in that large task matrices count more.

    Reference:
        Hameed et al., Model Merging via Data-Free Covariance Estimation, 2026, arXiv:2604.01329.
    """

    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(
            group,
            lambda deltas: least_interference(deltas, [1.0] * len(deltas)),
            scaling_factor=self.scaling_factor,
        )
