"""MetaGPT: task arithmetic with closed-form coefficients."""

from __future__ import annotations

import math

from torch import Tensor

from fb_merging.operations.combine import weighted_sum
from fb_merging.operations.energy import Energy
from fb_merging.task_vectors.records import METAGPT
from fusionbench_core import Survey, TensorGroup, TensorMethod, implements


@implements(METAGPT)
class MetaGpt(TensorMethod):
    r"""Task arithmetic, each task vector weighed by its share of the squared lengths.

    With task vectors $\tau_t = \theta_t - \theta_0$ of whole models:

    $$\theta = \theta_0 + \sum_t \lambda_t \tau_t, \qquad
      \lambda_t = \frac{\|\tau_t\|^2}{\sum_s \|\tau_s\|^2}$$

    Notes:
        These coefficients minimise the mean loss difference to the models for orthogonal task vectors and
        local linearity. The lengths are over all merged tensors, found in one streaming pass.

    Reference:
        Zhou et al., MetaGPT: Merging Large Language Models Using Model Exclusive Task Arithmetic, EMNLP 2024,
        arXiv:2406.11385.
    """

    def survey(self) -> Survey | None:
        return Energy()

    def merge(self, group: TensorGroup) -> Tensor:
        total = math.fsum(group.survey)
        if total == 0:
            return group.base
        return group.base + weighted_sum(group.deltas, [energy / total for energy in group.survey])
