"""Linear interpolation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import LINEAR_INTERPOLATION
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(LINEAR_INTERPOLATION)
class LinearInterpolation(TensorMethod):
    r"""A point on the line through two models, entry by entry.

    $$\theta = (1 - t)\,\theta_1 + t\,\theta_2$$

    Notes:
        `t=0` gives the first model of the pool, `t=1` the second; other numbers extrapolate. The base, if
        there is one, does not count and is not read; to interpolate between the base and a model, put both
        among the models. (FusionBench counts `_pretrained_` as one of the two.)

    Reference:
        Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, arXiv:2109.01903.
    """

    t: float = Field(default=0.5, description="0: the first model; 1: the second")

    def merge(self, group: TensorGroup) -> Tensor:
        first, second = group.models
        return torch.lerp(first, second, self.t)
