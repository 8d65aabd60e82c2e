"""Adversarial weight masking of a merged model."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from fb_merging.learned.attacked_batch import AttackedBatch, defended_entropy, kept_predictions
from fb_merging.learned.concrete_mask import ConcreteMask, Draw
from fb_merging.learned.concrete_task_arithmetic import MaskedSum
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.perturbation import Perturbation
from fb_merging.learned.records import POST_DEFENSE_AWM
from fusionbench_core import Batch, FusionJob, MissingCapability, TaskModels, Training, implements


@implements(POST_DEFENSE_AWM)
class PostDefenseAWM(LearnedMethod):
    r"""Mask the update of a model that is merged already, so that perturbed inputs do not turn it.

    With $\tau$ what the merged model adds to the base, $m$ a mask of mean 1 in each tensor, sampled at every
    step from the logits $\ell$ that are learned, and $\hat y = \arg\max f_t(x; \theta)$:

    $$\theta = \theta_0 + m \odot \tau, \qquad
      \max_{\delta} \sum_t \mathbb E_{x \sim D_t}\, \mathrm{CE}\big(f_t(x + \delta_t; \theta), \hat y\big),
      \qquad \min_{\ell} \sum_t \mathbb E_{x \sim D_t}\,
      H\big(f_t(x; \theta)\big) + \alpha\, H\big(f_t(x + \delta_t; \theta)\big)$$

    Each step takes one of Adam on the perturbations $\delta_t$, one a task for all of its samples, and then
    one on the logits.

    Notes:
        The pool holds the merged model alone, and the tasks are all of the task pool.
        Adversarial weight masking prunes a network with labels; this is its variant for merged models, in
        FusionBench: unlabelled, and the mask is on the update. 100 steps are a moderate default; it takes
        2000. It also clamps $x + \delta_t$ to [0, 1] although its pixels are normalised; here nothing is.
        Inputs must be of floating-point type: images, not token numbers. Data as for `adamerging`.
        In 100 steps of these learning rates $\delta_t$ reaches 0.01 at most, and $\ell$ 0.1: raise both, or
        take more steps. With rates that reach as far as 2000 steps, one attacked expert among three and one
        seed (`benchmarks/backdoors.py`), attack success falls from 93 to 21 %, and accuracy by 2.5 points;
        with $\alpha = 0$ as well, so it is the mask that does it, not the perturbation at this weight.

    Reference:
        Chai and Chen, One-shot Neural Backdoor Erasing via Adversarial Weight Masking, NeurIPS 2022,
        arXiv:2207.04497; Yang et al., Mitigating the Backdoor Effect for Multi-Task Model Merging via
        Safety-Aware Subspace, ICLR 2025, arXiv:2410.13910.
    """

    copies = (1, 11)  # also the logits of the mask, their gradients and moments, and a perturbation

    adversarial_weight: float = Field(default=0.01, ge=0, description="α: of the entropy under perturbation")
    perturbation_learning_rate: float = Field(
        default=1e-4, gt=0, description="learning rate of the perturbations, in the inputs' units"
    )
    temperature: float = Field(default=0.5, gt=0, description="T: how far from binary the samples are")
    initial_logit: float = Field(default=0.0, description="ℓ at the beginning, for every entry")
    final_mask: Draw = "relaxed"

    @property
    def loss_name(self) -> str:
        return "loss"

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> MaskedSum:
        mask = ConcreteMask(
            space.base,
            lambda *key: job.generator(self.record.name, *key),
            temperature=self.temperature,
            initial_logit=self.initial_logit,
        )
        return MaskedSum(space, mask, 1.0, self.final_mask)

    def train(self, job: FusionJob, merged: Parameterization, models: TaskModels) -> dict[str, list[float]]:
        assert isinstance(merged, MaskedSum)
        perturbation = Perturbation(models, self.split, self.perturbation_learning_rate)
        merged_model = merged.unmasked()
        training = Training(
            job,
            self,
            merged.variables,
            models,
            learning_rate=self.learning_rate,
            kept=perturbation.kept,
        )

        def gradients(step: int) -> float:
            parameters = merged.merged(step)
            perturbation.descend(
                step, parameters, lambda seen: self.attack_loss(seen, seen.under(merged_model))
            )
            return models.descend_on(parameters, defence)

        def defence(task: int, leaves: Mapping[str, Tensor], batch: Batch) -> Tensor:
            seen = perturbation.attacked(task, leaves, batch)
            return self.defence_loss(seen, seen.under(merged_model))

        return {self.loss_name: training.run(gradients, self.steps, self.loss_name)}

    def attack_loss(self, seen: AttackedBatch, unmasked: AttackedBatch) -> Tensor:
        """What the perturbation makes small, for the masked and for the merged model; a scalar."""
        return kept_predictions(seen)

    def defence_loss(self, seen: AttackedBatch, unmasked: AttackedBatch) -> Tensor:
        """What the mask makes small, for the masked and for the merged model; a scalar."""
        return defended_entropy(seen, self.adversarial_weight)

    def task_models(self, job: FusionJob, trunk: nn.Module) -> TaskModels:
        """All tasks there are.

        Raises:
            MissingCapability: if there are none.
        """
        if not job.tasks:
            raise MissingCapability(
                f"{self.record.name} needs data of tasks",
                why="the task pool has no tasks",
                fix="choose a task pool with the tasks that were merged",
            )
        return TaskModels(
            job,
            self.record.name,
            trunk,
            split=self.split,
            batch_size=self.batch_size,
            tasks=tuple(job.tasks.values()),
        )
