"""Continual averaging."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.continual.records import CONTINUAL_AVERAGE
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(CONTINUAL_AVERAGE)
class ContinualAverage(TensorMethod):
    r"""The running mean of the models that arrive.

    $$\theta^{(t)} = \theta^{(t-1)} + \frac{\theta_t - \theta^{(t-1)}}{t}$$

    Notes:
        The order does not matter, so it is the simple average, except that models can be added to an earlier
        result: put that first and say how many models it is the mean of.

    Reference:
        Tang et al., Merging on the Fly Without Retraining, NeurIPS 2025, arXiv:2501.09522 (as a baseline).
    """

    merged_models: int = Field(default=1, ge=1, description="how many models the first one is the mean of")

    def merge(self, group: TensorGroup) -> Tensor:
        merged = group.models[0]
        for count, model in enumerate(group.models[1:], self.merged_models + 1):
            merged = torch.lerp(merged, model, 1 / count)
        return merged
