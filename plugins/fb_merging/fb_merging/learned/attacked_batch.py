"""What a model gives for samples as they are, and for the same samples with a perturbation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import Tensor
from torch.nn import functional

from fusionbench_core import Batch, TaskModels, mean_entropy


class AttackedBatch:
    """A batch of a task, and the same with a perturbation, for a model with certain parameters.

    Attributes:
        batch: The samples.
        perturbed: The same with the perturbation.
        task: Position of their task.
    """

    def __init__(
        self, models: TaskModels, task: int, parameters: Mapping[str, Tensor], batch: Batch, perturbed: Batch
    ) -> None:
        self._models, self._parameters = models, parameters
        self.task, self.batch, self.perturbed = task, batch, perturbed

    @cached_property
    def clean(self) -> Tensor:
        """Logits `(n, classes)` of the samples."""
        return self._models.logits(self.task, self._parameters, self.batch)

    @cached_property
    def attacked(self) -> Tensor:
        """Logits `(n, classes)` of the perturbed samples."""
        return self._models.logits(self.task, self._parameters, self.perturbed)

    def under(self, parameters: Mapping[str, Tensor]) -> AttackedBatch:
        """The same samples for a model with other parameters."""
        return AttackedBatch(self._models, self.task, parameters, self.batch, self.perturbed)


def kept_predictions(seen: AttackedBatch) -> Tensor:
    """Mean log-likelihood in nats, under the perturbation, of what was predicted without; a scalar.

    Made small, it turns the predictions: it is minus a cross-entropy.
    """
    return -functional.cross_entropy(seen.attacked.float(), seen.clean.argmax(1))


def defended_entropy(seen: AttackedBatch, adversarial_weight: float) -> Tensor:
    """Mean entropy in nats of the predictions, plus a weight times that under the perturbation; a scalar."""
    return mean_entropy(seen.clean) + adversarial_weight * mean_entropy(seen.attacked)
