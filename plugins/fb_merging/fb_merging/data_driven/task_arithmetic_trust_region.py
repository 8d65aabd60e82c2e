"""Task arithmetic in the trust region."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.data_driven.matching import statistic_of
from fb_merging.data_driven.records import TRUST_REGION
from fb_merging.operations.combine import add_all
from fb_merging.operations.magnitude import MagnitudeThreshold, Sample, Tally
from fusionbench_core import Capabilities, Survey, TensorGroup, TensorMethod, implements


@implements(TRUST_REGION)
class TaskArithmeticTrustRegion(TensorMethod):
    r"""Task arithmetic without the entries where one task's update would hurt another task.

    With task vectors $\tau_t$ and the mean magnitudes $|g_t|$ of the gradients of task t's loss at the base:

    $$\theta = \theta_0 + \lambda \sum_t 1[\Omega < q]\,\tau_t, \qquad
      \Omega = \sum_{i \ne j} |g_i| \odot |\tau_j|$$

    entry by entry; q is the quantile `threshold_quantile` of $\Omega$ over the whole model.

    Notes:
        `zero_shot=true` needs no data: $|\tau_t|$ stands for $|g_t|$, as gradients of the fine-tuning point
        along the task vector.
        Entries without any conflict, $\Omega = 0$, always stay: buffers, or all of a single model.
        In FusionBench gradients are kept under one name only, which makes the result the base.

    Reference:
        Sun et al., Task Arithmetic in Trust Region: A Training-Free Model Merging Approach to Navigate
        Knowledge Conflicts, ICLR 2025, arXiv:2501.15065.
    """

    scaling_factor: float = Field(default=0.3, description="λ: multiplies the sum of the task vectors")
    threshold_quantile: float = Field(
        default=0.99, gt=0, lt=1, description="quantile of the conflicts from which on entries are left out"
    )
    zero_shot: bool = Field(default=False, description="estimate gradients by the task vectors, without data")
    samples: int = Field(default=128, gt=0, description="labelled samples a task for the gradients")
    split: Literal["train", "validation"] = Field(default="train", description="split they come from")

    @property
    def capabilities(self) -> Capabilities:
        """The record's; without data if `zero_shot`."""
        declared = self.record.capabilities
        return dataclasses.replace(declared, statistics=(), tasks=()) if self.zero_shot else declared

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return {} if self.zero_shot else {"abs_gradient": {"samples": self.samples, "split": self.split}}

    def survey(self) -> Survey:
        return ConflictThreshold(self, MagnitudeThreshold(1 - self.threshold_quantile))

    def merge(self, group: TensorGroup) -> Tensor:
        conflict = self.conflict(group)
        (threshold,) = group.survey or [torch.inf]
        trusted = (conflict < threshold) | (conflict == 0)
        return group.base + self.scaling_factor * torch.where(trusted, add_all(group.deltas), 0)

    def conflict(self, group: TensorGroup) -> Tensor:
        r"""$\Omega$ of one tensor."""
        sizes = [delta.abs() for delta in group.deltas]
        gradients = sizes
        if not self.zero_shot:
            gradients = statistic_of(group, "task_arithmetic_trust_region", "abs_gradient", group.shape)
        if not gradients:
            return torch.zeros_like(sizes[0])
        total = torch.zeros_like(sizes[0])
        # Not (Σ g)(Σ τ) - Σ g τ, which cancels badly where one task outweighs the others.
        for i, gradient in enumerate(gradients):
            others = [size for j, size in enumerate(sizes) if j != i]
            if others:
                total += gradient.to(total.dtype) * add_all(others)
        return total


@dataclass(frozen=True)
class ConflictThreshold(Survey):
    """The quantile of the conflicts over the whole model, found as magnitudes are; a list of one number."""

    method: TaskArithmeticTrustRegion
    inner: MagnitudeThreshold

    def observe(self, group: TensorGroup) -> Sample | Tally:
        conflict = self.method.conflict(group)
        seen = TensorGroup(
            name=group.name,
            shape=group.shape,
            start=group.start,
            names=("conflict",),
            models=[conflict],
            base=None,
            seed=0,
        )
        seen.deltas = [conflict]
        return self.inner.observe(seen)

    def advance(self, total: Sample | Tally | None) -> ConflictThreshold | list[float]:
        found = self.inner.advance(total)
        return ConflictThreshold(self.method, found) if isinstance(found, MagnitudeThreshold) else found
