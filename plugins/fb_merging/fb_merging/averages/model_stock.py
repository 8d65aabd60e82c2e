"""Model Stock."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import MODEL_STOCK
from fb_merging.operations.combine import mean
from fb_merging.operations.vectors import cosine_similarity
from fusionbench_core import Capabilities, TensorGroup, TensorMethod, implements


@implements(MODEL_STOCK)
class ModelStock(TensorMethod):
    r"""Between the base and the mean of the models, by the angle between their task vectors.

    With $\cos\varphi$ the mean cosine of all pairs of task vectors $\theta_i - \theta_0$ and
    $\theta_j - \theta_0$:

    $$\theta = r\,\bar\theta + (1 - r)\,\theta_0, \qquad
      r = \frac{T \cos\varphi}{1 + (T - 1) \cos\varphi}$$

    Notes:
        Task vectors that are 0 are orthogonal to all others. The paper's ratio is one of interpolation:
        where the task vectors point away from each other the base stays. mergekit lets a negative cosine
        push the result beyond the base: `extrapolate=true`; where there is no finite ratio, the base stays.
        FusionBench averages the angles of pairs and not their cosines.
        `granularity="row"` takes one angle for each output unit. That is mergekit's `filter_wise: true` for
        matrices; of convolutions it takes the runs along the last dimension.

    Reference:
        Jang et al., Model Stock: All we need is just a few fine-tuned models, ECCV 2024, arXiv:2403.19522.
    """

    granularity: Literal["tensor", "row"] = Field(
        default="tensor", description="one angle for each tensor, or for each of its rows"
    )
    extrapolate: bool = Field(default=False, description="allow ratios outside of 0 to 1")

    @property
    def capabilities(self) -> Capabilities:
        """The record's, with the locality of the granularity."""
        return dataclasses.replace(self.record.capabilities, locality=self.granularity)

    def merge(self, group: TensorGroup) -> Tensor:
        deltas = group.deltas
        by_row = self.granularity == "row" and deltas[0].dim() > 1
        cosine = _mean_cosine_of_rows(deltas) if by_row else _mean_cosine(deltas)
        return group.base + mean(deltas) * self._ratio(cosine, len(deltas)).to(deltas[0].dtype)

    def _ratio(self, cosine: Tensor, count: int) -> Tensor:
        divisor = 1 + (count - 1) * cosine
        ratio = torch.where(divisor > 1e-6, count * cosine / divisor.clamp(min=1e-6), 0)
        return ratio if self.extrapolate else ratio.clamp(0, 1)


def _mean_cosine(deltas: list[Tensor]) -> Tensor:
    """fp64, no dimensions."""
    each = [cosine_similarity(a, b) or 0.0 for a, b in itertools.combinations(deltas, 2)]
    return torch.tensor(math.fsum(each) / len(each), dtype=torch.float64)


def _mean_cosine_of_rows(deltas: list[Tensor]) -> Tensor:
    """fp64 `(rows, 1, …)`."""
    dims = tuple(range(1, deltas[0].dim()))
    wide = [delta.double() for delta in deltas]
    norms = [(x * x).sum(dims, keepdim=True).sqrt() for x in wide]
    each = []
    for i, j in itertools.combinations(range(len(deltas)), 2):
        lengths = norms[i] * norms[j]
        inner = (wide[i] * wide[j]).sum(dims, keepdim=True)
        each.append((inner / torch.where(lengths > 0, lengths, 1)).clamp_(-1, 1))
    return mean(each)
