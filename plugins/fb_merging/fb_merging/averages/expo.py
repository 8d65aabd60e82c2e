"""ExPO: model extrapolation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import EXPO
from fb_merging.operations.combine import mean
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(EXPO)
class Expo(TensorMethod):
    r"""Go on in the direction from the base to an aligned model.

    With $\bar\theta$ the mean of the models, usually one:

    $$\theta = \bar\theta + \alpha\,(\bar\theta - \theta_0)$$

    Notes:
        The base is the model before alignment (SFT), the model the one after (RLHF, DPO). The paper searches
        $\alpha$ for each model with a reward model, most often between 0.1 and 0.5.
        FusionBench defaults to 0.1; several models are averaged first, as it does.

    Reference:
        Zheng et al., Model Extrapolation Expedites Alignment, ACL 2025, arXiv:2404.16792.
    """

    extrapolation_factor: float = Field(
        default=0.3, description="α: 0 is the mean of the models, larger numbers go beyond it"
    )

    def merge(self, group: TensorGroup) -> Tensor:
        return torch.add(group.base, mean(group.deltas), alpha=1 + self.extrapolation_factor)
