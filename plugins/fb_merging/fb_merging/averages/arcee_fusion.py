"""Arcee Fusion."""

from __future__ import annotations

import torch
from torch import Tensor

from fb_merging.averages.records import ARCEE_FUSION
from fusionbench_core import TensorGroup, TensorMethod, implements

_BLOCK = 1 << 20
"""Entries compared at a time, in fp64."""


@implements(ARCEE_FUSION)
class ArceeFusion(TensorMethod):
    r"""Take over those entries of a model that differ most from the base, tensor by tensor.

    With $p_t$ the softmax of a row of $\theta_t$ (along the last dimension), and $q$ the quartiles of the
    importance $s$ over the tensor:

    $$\theta = \theta_0 + [s \ge q_2 + 1.5\,(q_3 - q_1)] \odot (\theta_1 - \theta_0), \qquad
      s = |\theta_1 - \theta_0|\; D_{\mathrm{KL}}(p_1 \,\|\, p_0)$$

    Notes:
        Quartiles are exact (the entry at rank $\lfloor q (n-1) \rfloor$, counted from 0); mergekit takes them
        from a random million of entries in larger tensors, and adds 1e-8 to all probabilities. The divergence
        is taken in fp64, as it is far below the rounding errors of fp32 for close models.

    Reference:
        Goddard et al., Arcee's MergeKit, EMNLP 2024, arXiv:2403.13257, and its documentation.
    """

    def merge(self, group: TensorGroup) -> Tensor:
        (delta,), (model,) = group.deltas, group.models
        if delta.numel() == 0:
            return group.base
        score = delta.abs() * divergence(model, group.base).to(delta.dtype)
        return group.base + torch.where(score >= _threshold(score), delta, 0)


def divergence(model: Tensor, base: Tensor) -> Tensor:
    """fp64, of the same shape but 1 in the last dimension: KL divergence of the softmax of each row."""
    width = model.shape[-1] if model.dim() else 1
    rows = zip(*(x.reshape(-1, width).split(max(1, _BLOCK // width)) for x in (model, base)))
    found = [_divergence(p.double().log_softmax(-1), q.double().log_softmax(-1)) for p, q in rows]
    return torch.cat(found).view(*model.shape[:-1], 1) if model.dim() else torch.cat(found).view(())


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1).clamp_(min=0)


def _threshold(score: Tensor) -> float:
    flat, last = score.reshape(-1), score.numel() - 1
    low, middle, high = (float(flat.kthvalue(int(q * last) + 1).values) for q in (0.25, 0.5, 0.75))
    return middle + 1.5 * (high - low)
