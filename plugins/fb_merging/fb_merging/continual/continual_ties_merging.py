"""Continual TIES-Merging."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.continual.records import CONTINUAL_TIES_MERGING
from fb_merging.operations.ties import ties
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(CONTINUAL_TIES_MERGING)
class ContinualTiesMerging(TensorMethod):
    r"""Merge the task vector of each model that arrives with what is merged already, by TIES.

    With $\tau_t = \theta_t - \theta_0$ and $m_t = \theta^{(t)} - \theta_0$:

    $$m_1 = \lambda\,\tau_1, \qquad m_t = m_{t-1} + \lambda \operatorname{TIES}(m_{t-1}, \tau_t)$$

    Notes:
        Models arrive in the order of the pool. Thresholds are taken tensor by tensor, so that one pass is
        enough whatever the number of models; FusionBench takes one over the whole model at each step.
        What is merged already takes part in TIES and is kept besides, as in FusionBench: its largest entries
        grow by the factor $1 + \lambda$ with every model. With FusionBench's $\lambda = 0.5$, six models of
        the embedded benchmarks end up at four times the length of a task vector and below the base, with
        thresholds over the whole model, too. Take a smaller $\lambda$ for more than a few models.
        To add models to an earlier result, put that first and set `first_is_merged`.

    Reference:
        Tang et al., Merging on the Fly Without Retraining, NeurIPS 2025, arXiv:2501.09522 (as a baseline);
        Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708.
    """

    density: float = Field(
        default=0.2, gt=0, le=1, description="fraction of the entries kept in each of the two"
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="sum", description="what becomes of the updates that have the elected sign"
    )
    scaling_factor: float = Field(default=0.5, description="λ: multiplies what each model adds")
    first_is_merged: bool = Field(default=False, description="the first model is an earlier result")

    def merge(self, group: TensorGroup) -> Tensor:
        first, *others = group.deltas
        merged = first if self.first_is_merged else first * self.scaling_factor
        for delta in others:
            update = ties([merged, delta], self.density, self.merge_func)
            merged = torch.add(merged, update, alpha=self.scaling_factor)
        return group.base + merged
