"""PCB-Merging: parameter competition balancing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import add_all
from fb_merging.operations.threshold_pair import PairOfTotals, ThresholdPair
from fb_merging.task_vectors.records import PCB_MERGING
from fusionbench_core import Survey, TensorGroup, TensorMethod, implements

TAIL = 1e-4
"""Fraction of magnitudes that are clipped at each end."""


@implements(PCB_MERGING)
class PcbMerging(TensorMethod):
    r"""Weigh each update by its size and by its agreement with the others, drop those of low score.

    With task vectors $\tau_t = \theta_t - \theta_0$, whose magnitudes $a_t$ are clipped to those at the ranks
    0.0001 and 0.9999 of the model, $N$ scaling a whole model's numbers to 0 to 1, and $\hat s_t$ the scores
    less that of which the fraction `density` of the model is not below, where positive:

    $$\theta = \theta_0 + \lambda\,\frac{\sum_t \beta_t\,\mathrm{sgn}(\tau_t)\,a_t}{\sum_t \beta_t}, \qquad
      \beta_t = \frac{\hat s_t}{\max \hat s_t}, \quad
      s_t = \exp\big(T\,N(a_t)^2\big)\,\tanh\Big(\tau_t \sum_u \tau_u\Big)$$

    Notes:
        This is what the authors' code does. In the paper both factors are softmax functions, of the squared
        updates and of the products with each other model. Scores below 0, of updates against the sum, count
        as 0. All thresholds are over whole models, found exactly in four streaming passes. As tanh is not
        linear the result depends on the scale of the weights, if little.
        The authors take densities of 0.05 to 0.2 and λ = 1.2, or search λ with validation data.

    Reference:
        Du et al., Parameter Competition Balancing for Model Merging, NeurIPS 2024, arXiv:2410.02396.
    """

    density: float = Field(
        default=0.1, gt=0, le=1, description="fraction of the entries of each model kept by their score"
    )
    scaling_factor: float = Field(default=1.2, description="λ: multiplies the merged task vector")

    def survey(self) -> Survey | None:
        return CompetitionSurvey(self.density, ThresholdPair.of(TAIL, 1 - TAIL))

    def merge(self, group: TensorGroup) -> Tensor:
        clips, (bounds, largest) = group.survey
        clipped = clip(group.deltas, clips)
        weights = [
            _share(score, bound, top)
            for score, bound, top in zip(scores(group.deltas, clips), bounds, largest)
        ]
        merged = add_all([update * weight for update, weight in zip(clipped, weights)])
        total = add_all(weights)
        return torch.add(
            group.base, merged.div_(total.masked_fill_(total == 0, 1)), alpha=self.scaling_factor
        )


Clips = tuple[Sequence[float], Sequence[float]]
"""For each model, the largest magnitude and the smallest one."""


def clip(deltas: Sequence[Tensor], clips: Clips) -> list[Tensor]:
    """Task vectors with clipped magnitudes; entries that are 0 stay 0."""
    return [delta.sign() * delta.abs().clamp(low, high) for delta, high, low in zip(deltas, *clips)]


def scores(deltas: Sequence[Tensor], clips: Clips) -> list[Tensor]:
    """fp32: how each entry of each model fares in the competition, up to a common factor; 0 at least."""
    total = add_all(deltas)
    count = len(deltas)
    result = []
    for delta, high, low in zip(deltas, *clips):
        size = (delta.abs().clamp(low, high) - low) / (high - low if high > low else 1.0)
        # exp(count) is left out, which would overflow for many models.
        score = (count * (size.square() - 1)).exp_() * (delta * total).tanh_().clamp_(min=0)
        # The thresholds are numbers in fp32; an entry that equals one in fp32 only would weigh something.
        result.append(score.float())
    return result


def _share(score: Tensor, bound: float, largest: float) -> Tensor:
    """From 0 at the bound to 1 at the largest score."""
    if largest <= bound:
        return ((score >= bound) & (score > 0)).to(score.dtype)
    return (score - bound).clamp_(min=0).div_(largest - bound)


@dataclass(frozen=True)
class CompetitionSurvey(Survey):
    """The clips of all models; then, of their scores, the bound and the largest one."""

    density: float
    current: ThresholdPair
    clips: Clips | None = None

    def observe(self, group: TensorGroup) -> PairOfTotals:
        if self.clips is not None:
            group.deltas = scores(group.deltas, self.clips)
        return self.current.observe(group)

    def advance(self, total: PairOfTotals | None) -> Survey | tuple[Clips, tuple[list[float], list[float]]]:
        state = self.current.advance(total)
        if isinstance(state, ThresholdPair):
            return dataclasses.replace(self, current=state)
        if self.clips is None and total is not None:
            # A density of almost 0 keeps one entry, the largest.
            return CompetitionSurvey(self.density, ThresholdPair.of(self.density, 1e-300), state)
        return self.clips or state, state
