"""Continual task arithmetic."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.continual.records import CONTINUAL_TASK_ARITHMETIC
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(CONTINUAL_TASK_ARITHMETIC)
class ContinualTaskArithmetic(TensorMethod):
    r"""Add the scaled task vector of each model that arrives.

    $$\theta^{(0)} = \theta_0, \qquad \theta^{(t)} = \theta^{(t-1)} + \lambda\,(\theta_t - \theta_0)$$

    Notes:
        The order does not matter, so it is task arithmetic, except that models can be added to an earlier
        result: put that first and set `first_is_merged`.

    Reference:
        Tang et al., Merging on the Fly Without Retraining, NeurIPS 2025, arXiv:2501.09522 (as a baseline);
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089.
    """

    scaling_factor: float = Field(default=0.3, description="λ: multiplies each task vector")
    first_is_merged: bool = Field(default=False, description="the first model is an earlier result")

    def merge(self, group: TensorGroup) -> Tensor:
        merged = group.models[0].clone() if self.first_is_merged else group.base.clone()
        for delta in group.deltas[1 if self.first_is_merged else 0 :]:
            merged.add_(delta, alpha=self.scaling_factor)
        return merged
