"""Singular value calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import LeftAlone, is_matrix
from fb_merging.operations.svd import rounding_of_differences, svd
from fb_merging.operations.vectors import norm
from fb_merging.post.post_operation import PostOperation
from fb_merging.post.records import SINGULAR_VALUE_CALIBRATION
from fusionbench_core import TensorGroup, implements


@implements(SINGULAR_VALUE_CALIBRATION)
class SingularValueCalibration(PostOperation):
    r"""Scale the singular values of merged task matrices by how much adds up along each direction.

    With $U \operatorname{diag}(\sigma)\,V^\top$ the merged task matrix $\Delta$, and $\Delta_t$ the task
    matrices:

    $$W = W_0 + U \operatorname{diag}(\gamma_r \sigma_r)\,V^\top, \qquad
      \gamma_r = \frac{T}{\sum_t \max(\alpha, s_{t,r})}, \qquad
      s_{t,r} = \frac{\langle u_r^\top \Delta,\, u_r^\top \Delta_t \rangle}
                     {\lVert u_r^\top \Delta_t \rVert^2}$$

    Notes:
        A larger $\alpha$ scales down more. The paper takes 0.1 after averaging, task arithmetic, TIES, DARE
        and Iso-C, 0.2 after Iso-CTS, and 1 after TSV-Merging and WUDI-Merging.
        $s_{t,r} = 0$ for a task with nothing along $u_r$. Singular values no larger than the rounding errors
        of the weights are not scaled: their vectors are arbitrary.
        Tensors that are no matrix, and those named in `exclude`, stay as the inner method merged them.

    Reference:
        Li et al., When Shared Knowledge Hurts: Spectral Over-Accumulation in Model Merging, ICML 2026,
        arXiv:2602.05536.
    """

    own_scratch: ClassVar[tuple[float, float]] = (3, 20)

    alpha: float = Field(default=0.1, gt=0, description="α: least coefficient of a task along a direction")
    exclude: LeftAlone = ()

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return self.method.merge(group)
        deltas = [delta.clone() for delta in group.deltas]
        base, update = self.merged(group)
        return base + calibrate(update, deltas, self.alpha, rounding_of_differences(base))


def calibrate(matrix: Tensor, deltas: Sequence[Tensor], alpha: float, rounding: float) -> Tensor:
    """fp64 `(m, n)`: the merged matrix with singular values above `rounding` calibrated."""
    factors = svd(matrix)
    merged = factors.s[:, None] * factors.vh
    total = torch.zeros_like(factors.s)
    for delta in deltas:
        response = factors.u.T @ delta.double()
        length = response.norm(dim=1)
        nothing = max(rounding, max(delta.shape) * torch.finfo(torch.float64).eps * norm(delta))
        inner = (merged * response).sum(1) / length.square().clamp(min=torch.finfo(torch.float64).tiny)
        total += torch.where(length > nothing, inner, 0).clamp(min=alpha)
    scale = torch.where(factors.s > rounding, len(deltas) / total, 1)
    return (factors.u * (scale * factors.s)) @ factors.vh
