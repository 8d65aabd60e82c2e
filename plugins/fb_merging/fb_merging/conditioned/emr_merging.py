"""EMR-Merging."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fb_merging.conditioned.masked_method import MaskedMethod
from fb_merging.conditioned.records import EMR_MERGING
from fb_merging.operations.combine import merge_elected
from fusionbench_core import implements


@implements(EMR_MERGING)
class EmrMerging(MaskedMethod):
    r"""Elect, mask and rescale: one task vector for all tasks, and a mask and a factor for each.

    With task vectors $\tau_t = \theta_t - \theta_0$, entry by entry:

    $$\theta^{(t)} = \theta_0 + \lambda_t\,m_t \odot \tau, \qquad
      \tau = \gamma \max_{t:\,\mathrm{sgn}\,\tau_t = \gamma} |\tau_t|, \qquad
      \gamma = \mathrm{sgn} \sum_t \tau_t$$

    $$m_t = 1[\tau_t \odot \tau > 0], \qquad
      \lambda_t = \frac{\lVert \tau_t \rVert_1}{\lVert m_t \odot \tau \rVert_1}$$

    Notes:
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.
        The norms are over the whole model, as in the paper; the authors' code and FusionBench add up the
        means of all tensors. A task whose mask is empty has $\lambda_t = 1$.
        Where the task vectors cancel exactly no sign is elected, and the base stays.

    Reference:
        Huang et al., EMR-Merging: Tuning-Free High-Performance Model Merging, NeurIPS 2024, arXiv:2405.17461.
    """

    def unify(self, deltas: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        unified = merge_elected(deltas, "max")
        # Signs, not products, which underflow.
        return unified, [(delta.sign() * unified.sign()) > 0 for delta in deltas]

    def rescalers(self, own: Tensor, masked: Tensor) -> Tensor:
        return torch.where(masked > 0, own / masked.clamp(min=torch.finfo(masked.dtype).tiny), 1)
