"""TIES-Merging."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import DISJOINT, elect_sign
from fb_merging.operations.magnitude import MagnitudeThreshold, thresholds_of
from fb_merging.operations.sparsify import keep_largest
from fb_merging.task_vectors.records import TIES_MERGING
from fusionbench_core import Capabilities, TensorGroup, TensorMethod, implements


@implements(TIES_MERGING)
class TiesMerging(TensorMethod):
    r"""Trim small updates, elect a sign for each entry, merge the updates that agree with it.

    With task vectors $\tau_t = \theta_t - \theta_0$, trimmed to their largest entries $\hat\tau_t$:

    $$\theta = \theta_0 + \lambda \frac{\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,\hat\tau_t}
                                       {\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]}, \qquad
      \gamma = \mathrm{sgn} \sum_t \hat\tau_t$$

    Notes:
        `trim="model"` (the paper) takes one threshold over the whole task vector of a model, which is found
        exactly in two streaming passes; `trim="tensor"` takes one a tensor and needs none.
        All entries as large as the threshold (in fp32) are kept, so equal magnitudes can keep more than
        `density`.
        Where the trimmed updates cancel exactly no sign is elected and the base stays, as the formula says;
        the authors' code and FusionBench take the sign of the majority of all entries there.
        $\lambda = 1$ with the disjoint mean is the paper's recipe without validation data.
        FusionBench sums the agreeing updates and takes $\lambda = 0.3$ (`merge_func="sum"`,
        `scaling_factor=0.3` here), and calls 100 x `density` `threshold`.

    Reference:
        Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708.
    """

    density: float = Field(
        default=0.2, gt=0, le=1, description="fraction of the entries kept in each task vector"
    )
    trim: Literal["model", "tensor"] = Field(
        default="model", description="one threshold over all merged entries of a model, or one a tensor"
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    @property
    def capabilities(self) -> Capabilities:
        """The record's, with the locality and the passes that `trim` and `density` need."""
        capabilities = self.record.capabilities
        if self.density == 1:
            return dataclasses.replace(capabilities, surveys=0)
        if self.trim == "tensor":
            return dataclasses.replace(capabilities, surveys=0, locality="tensor")
        return capabilities

    def survey(self) -> MagnitudeThreshold | None:
        return MagnitudeThreshold(self.density) if self.capabilities.surveys else None

    def merge(self, group: TensorGroup) -> Tensor:
        trimmed = [keep_largest(delta, bound) for delta, bound in zip(group.deltas, self._bounds(group))]
        merged = DISJOINT[self.merge_func](trimmed, elect_sign(trimmed))
        return torch.add(group.base, merged, alpha=self.scaling_factor)

    def _bounds(self, group: TensorGroup) -> list[float]:
        """For each model, the magnitude from which on its entries are kept."""
        if self.density == 1:
            return [0.0] * len(group.models)
        return thresholds_of(group, self.density) if self.trim == "tensor" else group.survey
