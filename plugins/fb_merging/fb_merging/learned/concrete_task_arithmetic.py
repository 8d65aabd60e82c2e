"""Concrete task arithmetic."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from fb_merging.learned.concrete_mask import ConcreteMask, Draw
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import CONCRETE_TASK_ARITHMETIC
from fusionbench_core import FusionJob, implements


@implements(CONCRETE_TASK_ARITHMETIC)
class ConcreteTaskArithmetic(LearnedMethod):
    r"""Task arithmetic in a subspace that is learned: a mask for all task vectors, entry by entry.

    $$\theta = \theta_0 + \lambda\, m \odot \sum_t \tau_t, \qquad
      \min_\ell \sum_t \mathbb E_{x \sim D_t,\, m \sim \mathrm{Concrete}(\ell)}\,
      H\big(\mathrm{softmax} f_t(x; \theta)\big)$$

    with one mask $m$ of mean 1 in each tensor, sampled anew at every step from the logits $\ell$.

    Notes:
        The result takes a sample of the mask, as in the authors' code; `final_mask="mean"` takes no chance.
        100 steps are a moderate default for small models; the paper and FusionBench take 2000.
        Only parameters in which some model differs from the base are masked. Data as for `adamerging`.

    Reference:
        Tang et al., Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion,
        2023, arXiv:2312.06173.
    """

    copies = (1, 10)  # also the mask's logits, their gradients and moments, and a sample with what led to it

    scaling_factor: float = Field(default=0.3, description="λ: multiplies the masked sum of the task vectors")
    temperature: float = Field(default=0.5, gt=0, description="T: how far from binary the samples are")
    initial_logit: float = Field(default=0.0, description="ℓ at the beginning, for every entry")
    final_mask: Draw = "relaxed"

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        mask = ConcreteMask(
            space.base,
            lambda *key: job.generator("concrete_task_arithmetic", *key),
            temperature=self.temperature,
            initial_logit=self.initial_logit,
        )
        return MaskedSum(space, mask, self.scaling_factor, self.final_mask)


class MaskedSum(Parameterization):
    """The base plus the masked and scaled sum of the task vectors."""

    def __init__(self, space: ParameterSpace, mask: ConcreteMask, scaling_factor: float, draw: Draw) -> None:
        self.variables, self._mask, self._base = mask.logits, mask, space.base
        self._draw: Draw = draw
        self._sum = {name: scaling_factor * vectors.sum(0) for name, vectors in space.vectors.items()}

    def merged(self, step: int) -> dict[str, Tensor]:
        return self._masked(self._mask.sample(step))

    def final(self) -> dict[str, Tensor]:
        return self._masked(self._mask.final(self._draw))

    def unmasked(self) -> dict[str, Tensor]:
        """The parameters without the mask."""
        return {name: base + self._sum[name] for name, base in self._base.items()}

    def details(self) -> dict[str, Any]:
        return self._mask.details()

    def _masked(self, mask: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: base + self._sum[name] * mask[name] for name, base in self._base.items()}
