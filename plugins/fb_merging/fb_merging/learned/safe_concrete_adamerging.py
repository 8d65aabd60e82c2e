"""Concrete AdaMerging with a defence against backdoors."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.learned.attacked_batch import defended_entropy, kept_predictions
from fb_merging.learned.concrete_adamerging import (
    ConcreteAdaMerging,
    InnerStep,
    MaskedCoefficients,
    MaskStep,
)
from fb_merging.learned.perturbation import Perturbation
from fb_merging.learned.records import SAFE_CONCRETE_ADAMERGING
from fusionbench_core import TaskModels, implements


@implements(SAFE_CONCRETE_ADAMERGING)
class SafeConcreteAdaMerging(ConcreteAdaMerging):
    r"""Concrete AdaMerging whose mask also keeps predictions certain under inputs that try to turn them.

    As in `concrete_adamerging`, but before each step on the mask's logits $\ell$ a perturbation $\delta_t$ of
    each task's inputs, one for all of its samples, takes a step of Adam towards other predictions, and the
    mask is then learned against it. With $\hat y = \arg\max f_t(x; \theta)$:

    $$\max_{\delta} \sum_t \mathbb E_{x \sim D_t}\, \mathrm{CE}\big(f_t(x + \delta_t; \theta), \hat y\big),
      \qquad \min_{\ell} \sum_t \mathbb E_{x \sim D_t}\,
      H\big(f_t(x; \theta)\big) + \alpha\, H\big(f_t(x + \delta_t; \theta)\big)$$

    Models with a backdoor answer to such a perturbation, as they do to the trigger that was planted.

    Notes:
        It is the Defense-Aware Merging (DAM) of the authors' code in FusionBench, with one mask; the paper
        speaks of two, for what tasks share and for what backdoors use.
        That code clamps $x + \delta_t$ to [0, 1] although its pixels are normalised; here nothing is clamped.
        Inputs must be of floating-point type: images, not token numbers. Else as `concrete_adamerging`.
        The paper reports 2 to 10 points less attack success. In the measurement that `post_defense_awm`
        describes none was seen: 81 %, and 71 % for `concrete_adamerging`; accuracy is 2 points higher.

    Reference:
        Yang et al., Mitigating the Backdoor Effect for Multi-Task Model Merging via Safety-Aware Subspace,
        ICLR 2025, arXiv:2410.13910.
    """

    adversarial_weight: float = Field(default=0.1, ge=0, description="α: of the entropy under perturbation")
    perturbation_learning_rate: float = Field(
        default=1e-4, gt=0, description="learning rate of the perturbations, in the inputs' units"
    )

    def mask_step(self, merged: MaskedCoefficients, models: TaskModels, inner: InnerStep) -> MaskStep:
        """A step on the perturbations before each on the mask's logits."""
        perturbation = Perturbation(models, self.split, self.perturbation_learning_rate)
        return _DefendedMaskStep(merged, models, inner, perturbation, self.adversarial_weight)


class _DefendedMaskStep(MaskStep):
    def __init__(
        self,
        merged: MaskedCoefficients,
        models: TaskModels,
        inner: InnerStep,
        perturbation: Perturbation,
        adversarial_weight: float,
    ) -> None:
        super().__init__(merged, models, inner)
        self._perturbation, self._weight = perturbation, adversarial_weight
        self.kept |= perturbation.kept

    def descend(self, step: int, parameters: dict[str, Tensor]) -> float:
        self._perturbation.descend(step, parameters, kept_predictions)
        return self.models.descend_on(
            parameters,
            lambda task, leaves, batch: defended_entropy(
                self._perturbation.attacked(task, leaves, batch), self._weight
            ),
        )
