"""SCE: select, calculate, erase."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import disjoint_mean, elect_sign, mean
from fb_merging.operations.sparsify import count_kept
from fb_merging.operations.vectors import dot
from fb_merging.task_vectors.records import SCE
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(SCE)
class Sce(TensorMethod):
    r"""Select the entries that vary most between the models, weigh models by energy, erase minority signs.

    With task vectors $\tau_t = \theta_t - \theta_0$, tensor by tensor:

    $$\theta = \theta_0 + \frac{\sum_t \eta_t\,1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,\hat\tau_t}
                               {\sum_t \eta_t\,1[\mathrm{sgn}\,\hat\tau_t = \gamma]}, \qquad
      \hat\tau_t = m \odot \tau_t, \quad
      \eta_t = \frac{\|\hat\tau_t\|^2}{\sum_s \|\hat\tau_s\|^2}, \quad
      \gamma = \mathrm{sgn} \sum_t \hat\tau_t$$

    where $m$ keeps the fraction `density` with the largest variance over the models, among the entries that
    vary at all.

    Notes:
        Where no model differs from another, nothing is selected and the base stays. The division by the
        weights that are left is that of the authors' code, which is mergekit's. mergekit calls `density`
        `select_topk` and defaults to 1; it also takes equal weights once the mean squares add up to less
        than 1e-6, as they do for most fine-tuned models, and counts down to whole entries.

    Reference:
        Wan et al., FuseChat: Knowledge Fusion of Chat Models, 2024, arXiv:2408.07990.
    """

    density: float = Field(
        default=0.1, gt=0, le=1, description="fraction of the varying entries kept in each tensor"
    )

    def merge(self, group: TensorGroup) -> Tensor:
        selected = self._select(group.deltas) if self.density < 1 else group.deltas
        energies = [dot(delta, delta) for delta in selected]
        if not any(energies):
            return group.base
        weights = [energy / math.fsum(energies) for energy in energies]
        weighted = [delta * weight for delta, weight in zip(selected, weights)]
        return group.base + disjoint_mean(weighted, elect_sign(selected), weights)

    def _select(self, deltas: list[Tensor]) -> list[Tensor]:
        variance = _variance(deltas).reshape(-1)
        varying = int(torch.count_nonzero(variance))
        if not varying:
            return [torch.zeros_like(delta) for delta in deltas]
        bound = variance.kthvalue(variance.numel() - count_kept(self.density, varying) + 1).values
        chosen = (variance >= bound).view(deltas[0].shape)
        return [torch.where(chosen, delta, 0) for delta in deltas]


def _variance(deltas: list[Tensor]) -> Tensor:
    # Around the first, so that numbers which are all equal have a variance of exactly 0.
    first = deltas[0]
    centre = first + mean([delta - first for delta in deltas])
    return mean([(delta - centre).square_() for delta in deltas])
