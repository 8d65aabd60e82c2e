"""KnOTS: merge in the basis that all task matrices share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import column_basis
from fb_merging.operations.ties import ties
from fb_merging.spectral.records import KNOTS
from fusionbench_core import TensorGroup, implements


@implements(KNOTS)
class Knots(MatrixMethod):
    r"""Rotate all task matrices into a common basis, and merge them there by TIES.

    With $\Delta_t = \theta_t - \theta_0$:

    $$\theta = \theta_0 + \lambda\,U \operatorname{TIES}(\Sigma V_1^\top, \dots, \Sigma V_T^\top), \qquad
      U \Sigma\,[V_1^\top \dots V_T^\top] = [\Delta_1 \dots \Delta_T]$$

    Notes:
        Made for models tuned by LoRA, whose task matrices point elsewhere although they do the same.
        Only TIES makes sense here: means and sums are the same in every basis.
        Trimming looks at $\Sigma V_t^\top = U^\top \Delta_t$, as in the authors' code; entries of weak
        directions are small and go first.
        Thresholds are taken tensor by tensor, where the authors take one over all layers.
        Tensors that are no matrix get the mean task vector, which $\lambda$ scales too.
        The authors choose `density` and $\lambda$ on validation data; the defaults are those of TIES.

    Reference:
        Stoica et al., Model merging with SVD to tie the Knots, ICLR 2025, arXiv:2410.19735.
    """

    density: float = Field(default=0.2, gt=0, le=1, description="fraction of the entries kept by trimming")
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(group, self._combine, scaling_factor=self.scaling_factor)

    def _combine(self, deltas: list[Tensor]) -> Tensor:
        basis = column_basis(deltas)
        aligned = [basis.T @ delta.double() for delta in deltas]
        return basis @ ties(aligned, self.density, self.merge_func)
