"""Reinforced agent merging with rescaling."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import hardshrink

from fb_merging.operations.combine import mean_of_active
from fb_merging.operations.masks import agreement
from fb_merging.task_vectors.records import RAMPLUS
from fusionbench_core import Capabilities, Survey, TensorGroup, TensorMethod, implements


@implements(RAMPLUS)
class RamPlus(TensorMethod):
    r"""Average updates that several models made, amplify those that one model made.

    With task vectors $\tau_t = \theta_t - \theta_0$, active where $|\tau_t| > \varepsilon$; $s_t$ of the
    active entries of model $t$ are active in another one, too, $u_t$ are not. Where only model $t$ is active:

    $$\theta = \theta_0 + \lambda_t\,\tau_t, \qquad
      \lambda_t = 1 + r\,\min\Big(\frac{s_t}{u_t}, \alpha\Big)$$

    and the mean of the active updates elsewhere, as in `ram`.

    Notes:
        `granularity="model"` counts over all merged tensors, in one streaming pass, as the authors' code does
        (github.com/xiangchi-yuan/mrl, `arm-r-v2`): its `rescale_factor` is $1 + r$, its $\alpha$ is 1 and its
        $\varepsilon$ `threshold`. Its command for RAM+ is `r=0.2, alpha=1`; it divides by 0 where $u_t = 0$
        and $\lambda_t$ is of no consequence. "tensor" counts in each tensor, as mergekit's `ramplus_tl` does,
        whose defaults these are. The values in the text of the paper are not confirmed.

    Reference:
        Yuan et al., Behavior Knowledge Merge in Reinforced Agentic Models, 2026, arXiv:2601.13572.
    """

    r: float = Field(default=0.1, ge=0, description="how much overlap amplifies the updates of one model")
    alpha: float = Field(default=0.2, ge=0, description="α: the largest ratio of shared to unique entries")
    epsilon: float = Field(default=1e-5, ge=0, description="updates up to this size count as none")
    granularity: Literal["model", "tensor"] = Field(
        default="model", description="count shared and unique entries over whole models, or in each tensor"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's, with the locality and the passes that `granularity` needs."""
        if self.granularity == "model":
            return self.record.capabilities
        return dataclasses.replace(self.record.capabilities, surveys=0, locality="tensor")

    def survey(self) -> Survey | None:
        return OverlapCount(self.epsilon) if self.granularity == "model" else None

    def merge(self, group: TensorGroup) -> Tensor:
        counter = OverlapCount(self.epsilon)
        counts = counter.observe(group) if group.survey is None else group.survey
        active = [hardshrink(delta, self.epsilon) for delta in group.deltas]
        alone = agreement([delta != 0 for delta in active]) == 1
        factors = [self._factor(shared, unique) for shared, unique in counts.tolist()]
        scaled = [torch.where(alone, delta * factor, delta) for delta, factor in zip(active, factors)]
        return group.base + mean_of_active(scaled)

    def _factor(self, shared: int, unique: int) -> float:
        ratio = shared / unique if unique else self.alpha
        return 1 + self.r * min(ratio, self.alpha)


@dataclass(frozen=True)
class OverlapCount(Survey):
    """int64 `(models, 2)`: active entries of each model that another one has, too, and that none has."""

    epsilon: float

    def observe(self, group: TensorGroup) -> Tensor:
        active = [delta.abs() > self.epsilon for delta in group.deltas]
        alone = agreement(active) == 1
        return torch.stack([torch.stack([(mask & ~alone).sum(), (mask & alone).sum()]) for mask in active])

    def advance(self, total: Tensor | None) -> Tensor | None:
        return total
