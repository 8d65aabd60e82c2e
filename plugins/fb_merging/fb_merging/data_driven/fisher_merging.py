"""Fisher merging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.data_driven.gradients import Estimate
from fb_merging.data_driven.matching import statistic_of
from fb_merging.data_driven.records import FISHER_MERGING
from fb_merging.operations.combine import mean
from fb_merging.operations.vectors import norm
from fusionbench_core import Capabilities, Survey, TensorGroup, TensorMethod, implements


@implements(FISHER_MERGING)
class FisherMerging(TensorMethod):
    r"""Average the models entry by entry, weighted by how much each one's predictions depend on the entry.

    With the diagonal $F_t$ of the Fisher information of model t on data of its task:

    $$\theta = \frac{\sum_t w_t\,\max(F_t, \epsilon)\,\theta_t}{\sum_t w_t\,\max(F_t, \epsilon)}, \qquad
      w_t = 1 / \|F_t\|_2 \ \text{over the whole model}$$

    Notes:
        `normalize=false` leaves the weights $w_t$ at 1. The floor $\epsilon$ makes entries that no model uses
        the simple average. Tensors that are no parameters are averaged.
        `estimate="exact"` costs a backward pass a sample and class: take `sampled` where there are many.
        FusionBench squares gradients summed over a batch, and adds $\epsilon$ in place of the maximum.

    Reference:
        Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022, arXiv:2111.09832.
    """

    normalize: bool = Field(default=True, description="divide each Fisher information by its norm")
    floor: float = Field(default=1e-6, gt=0, description="ε: smallest Fisher information of an entry")
    estimate: Estimate = "exact"
    samples: int = Field(default=256, gt=0, description="samples a task that it is estimated on")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's; the empirical estimate needs labels, the norm a pass over all models."""
        declared = self.record.capabilities
        if self.estimate == "empirical":
            declared = dataclasses.replace(declared, tasks=("labels",))
        return declared if self.normalize else dataclasses.replace(declared, surveys=0)

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            "diag_fisher": {"samples": self.samples, "split": self.split, "estimate": self.estimate},
        }

    def survey(self) -> Survey | None:
        return FisherNorms() if self.normalize else None

    def merge(self, group: TensorGroup) -> Tensor:
        average = mean(group.models)
        fishers = statistic_of(group, "fisher_merging", "diag_fisher", group.shape)
        if not fishers or not average.numel():
            return average
        scales = [1.0] * len(fishers)
        if group.survey is not None:
            scales = [1 / norm if norm else 1.0 for norm in group.survey]
        total = torch.zeros_like(average, dtype=torch.float64)
        change = torch.zeros_like(total)
        for fisher, scale, model in zip(fishers, scales, group.models):
            weight = fisher.double().clamp(min=self.floor) * scale
            total += weight
            change += weight * (model - average).double()
        return average + (change / total).to(average.dtype)


@dataclass(frozen=True)
class Squares:
    """Sums of squares, one a model."""

    values: tuple[float, ...]

    def __add__(self, other: Squares) -> Squares:
        return Squares(tuple(a + b for a, b in zip(self.values, other.values)))


@dataclass(frozen=True)
class FisherNorms(Survey):
    """Norms of all models' Fisher information; the result is one a model."""

    def observe(self, group: TensorGroup) -> Squares:
        fishers = group.statistics.get("diag_fisher") or [None] * len(group.models)
        return Squares(tuple(0.0 if fisher is None else norm(fisher) ** 2 for fisher in fishers))

    def advance(self, total: Squares | None) -> list[float] | None:
        return None if total is None else [value**0.5 for value in total.values]
