"""Concrete AdaMerging."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.learned.coefficients import Coefficients, Granularity
from fb_merging.learned.concrete_mask import ConcreteMask, Draw
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import CONCRETE_ADAMERGING
from fb_merging.operations.adam import adam_step
from fusionbench_core import Batch, FusionJob, TaskModels, Training, implements, mean_entropy


@implements(CONCRETE_ADAMERGING)
class ConcreteAdaMerging(LearnedMethod):
    r"""AdaMerging in a subspace that is learned first: a mask for all task vectors, entry by entry.

    $$\theta^l = \theta_0^l + m^l \odot \sum_t \lambda_t^l\, \tau_t^l$$

    First the mask's logits $\ell$ are learned for coefficients that adapt to it: each of `mask_steps` steps
    samples a mask, takes one step of Adam on the coefficients from their start, and then, at these
    coefficients and on new batches, one on the logits. Then `steps` steps learn the coefficients under a
    final mask. Both make the entropy of the predictions small.

    Notes:
        The inner step's gradient is not followed through: first-order, as in the authors' code. Its Adam
        keeps its moments from step to step, and its learning rate is the code's.
        100 steps of each are moderate defaults for small models; FusionBench takes 1000 of each.
        `granularity="tensor"` is what the authors and FusionBench call layer-wise. Data as for `adamerging`.

    Reference:
        Tang et al., Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion,
        2023, arXiv:2312.06173.
    """

    copies = (1, 11)  # also the mask's logits, their gradients and moments, and a sample with what led to it

    granularity: Granularity = "tensor"
    init_coefficient: float = Field(default=0.3, description="what all coefficients start from")
    temperature: float = Field(default=0.5, gt=0, description="T: how far from binary the samples are")
    initial_logit: float = Field(default=0.0, description="ℓ at the beginning, for every entry")
    final_mask: Draw = "relaxed"
    mask_steps: int = Field(default=100, ge=0, description="steps on the mask's logits")
    mask_learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of the mask's logits")
    inner_learning_rate: float = Field(
        default=1.0, ge=0, description="learning rate of the step on the coefficients before each on the mask"
    )

    @classmethod
    def example(cls, models: Any) -> dict[str, Any]:
        """A few steps show all there is to check."""
        return {
            "steps": 2,
            "mask_steps": 2,
            "learning_rate": 0.01,
            "inner_learning_rate": 0.1,
            "batch_size": 8,
        }

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> MaskedCoefficients:
        mask = ConcreteMask(
            space.base,
            lambda *key: job.generator("concrete_adamerging", *key),
            temperature=self.temperature,
            initial_logit=self.initial_logit,
        )
        coefficients = Coefficients(space, tuple(job.pool), self.granularity, self.init_coefficient)
        return MaskedCoefficients(coefficients, mask, self.final_mask)

    def mask_step(self, merged: MaskedCoefficients, models: TaskModels, inner: InnerStep) -> MaskStep:
        """What a step on the mask's logits does."""
        return MaskStep(merged, models, inner)

    def train(self, job: FusionJob, merged: Parameterization, models: TaskModels) -> dict[str, list[float]]:
        assert isinstance(merged, MaskedCoefficients)
        inner = InnerStep(merged.coefficients.variables["coefficients"], self.inner_learning_rate)
        mask_step = self.mask_step(merged, models, inner)
        training = Training(
            job,
            self,
            merged.mask.logits,
            models,
            learning_rate=self.mask_learning_rate,
            stage="mask",
            kept=mask_step.kept,
        )
        masking = training.run(mask_step.take, self.mask_steps, self.loss_name)
        inner.reset()
        merged.fix()
        training = Training(job, self, merged.variables, models, learning_rate=self.learning_rate)
        adapting = training.run(
            lambda step: models.descend(merged.merged(step), _entropy), self.steps, self.loss_name
        )
        return {"mask": masking, "coefficients": adapting}


class MaskedCoefficients(Parameterization):
    """The base plus a mask times the sum of the task vectors with their coefficients."""

    def __init__(self, coefficients: Coefficients, mask: ConcreteMask, draw: Draw) -> None:
        self.coefficients, self.mask = coefficients, mask
        self._draw: Draw = draw
        self.variables = coefficients.variables
        self._fixed: dict[str, Tensor] | None = None

    def fix(self) -> None:
        """Take the final mask from now on."""
        self._fixed = self.mask.final(self._draw)

    def masked(self, mask: dict[str, Tensor]) -> dict[str, Tensor]:
        """The merged parameters under a mask."""
        plain = self.coefficients.merged(0)
        base = self.coefficients.space.base
        return {name: base[name] + (value - base[name]) * mask[name] for name, value in plain.items()}

    def merged(self, step: int) -> dict[str, Tensor]:
        return self.masked(self.mask.final(self._draw) if self._fixed is None else self._fixed)

    def details(self) -> dict[str, Any]:
        return {**self.coefficients.details(), **self.mask.details()}


class InnerStep:
    """One step of Adam on the coefficients, always from their start, with moments that go on."""

    def __init__(self, coefficients: Tensor, learning_rate: float) -> None:
        self._coefficients, self._learning_rate = coefficients, learning_rate
        self._start = coefficients.detach().clone()
        self.moments = {"mean": torch.zeros_like(self._start), "square": torch.zeros_like(self._start)}

    def reset(self) -> None:
        """The coefficients as they were at the beginning."""
        self._coefficients.data.copy_(self._start)
        self._coefficients.grad = None

    def take(self, step: int) -> None:
        """Follow the gradient that the coefficients have."""
        grad = self._coefficients.grad
        assert grad is not None
        self.reset()
        moments = self.moments["mean"], self.moments["square"]
        adam_step(self._coefficients.data, grad, moments, step + 1, self._learning_rate)


class MaskStep:
    """The gradient of the mask's logits, at coefficients that adapted to a sample of the mask.

    Attributes:
        kept: Name -> tensors that a resumed training needs.
    """

    def __init__(self, merged: MaskedCoefficients, models: TaskModels, inner: InnerStep) -> None:
        self.merged, self.models, self._inner = merged, models, inner
        self.kept = dict(inner.moments)

    def take(self, step: int) -> float:
        """Leave the gradient in the logits; gives the loss."""
        mask = self.merged.mask.sample(step)
        self._inner.reset()
        fixed = {name: each.detach() for name, each in mask.items()}
        self.models.descend(self.merged.masked(fixed), _entropy)
        self.models.average_gradients(self.merged.coefficients.variables)
        self._inner.take(step)
        value = self.descend(step, self.merged.masked(mask))
        self.merged.coefficients.variables["coefficients"].grad = None
        return value

    def descend(self, step: int, parameters: dict[str, Tensor]) -> float:
        """Add the gradient of the loss at the masked parameters to what they came from; gives the loss."""
        return self.models.descend(parameters, _entropy)


def _entropy(task: int, logits: Tensor, batch: Batch) -> Tensor:
    return mean_entropy(logits)
