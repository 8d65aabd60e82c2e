"""A change of a task's inputs that turns a model's predictions, as a hidden trigger would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fb_merging.learned.attacked_batch import AttackedBatch
from fb_merging.operations.adam import adam_step
from fusionbench_core import Batch, MissingCapability, TaskModels, UnsupportedArchitecture


class Perturbation:
    r"""For each task one $\delta_t$ that is added to all of its samples, found by steps of Adam from 0.

    It changes the inputs of floating-point type, say pixels `(n, channels, height, width)`, and has the
    shape of one sample's.

    Args:
        models: The tasks, and where batches come from.
        split: Split of one sample of each task, which tells the shapes.
        learning_rate: Learning rate of Adam.

    Attributes:
        kept: Name -> tensors that a resumed training needs: $\delta$ and Adam's moments.

    Raises:
        UnsupportedArchitecture: if the models take no such inputs, as those of text do not.
    """

    def __init__(
        self, models: TaskModels, split: Literal["train", "validation", "test"], learning_rate: float
    ) -> None:
        self._models, self._learning_rate = models, learning_rate
        self._values: dict[tuple[int, str], Tensor] = {}
        for number, task in enumerate(models.tasks):
            (batch,) = task.batches(split, limit=1)
            found = {name: each[0] for name, each in batch.inputs.items() if each.is_floating_point()}
            if not found:
                raise UnsupportedArchitecture(
                    f"the inputs of task {task.name!r} cannot be perturbed",
                    why=f"none of {', '.join(batch.inputs)} is of floating-point type, as pixels are",
                    fix="leave out this task, or use a method that needs no perturbation",
                )
            for name, each in found.items():
                self._values[number, name] = torch.zeros_like(each, device=models.fabric.device)
        self._moments = {
            key: (torch.zeros_like(each), torch.zeros_like(each)) for key, each in self._values.items()
        }
        self.kept: dict[str, Tensor] = {}
        for key, value in self._values.items():
            name, (mean, square) = "/".join(map(str, key)), self._moments[key]
            self.kept |= {
                f"perturbation/{name}": value,
                f"perturbation_mean/{name}": mean,
                f"perturbation_square/{name}": square,
            }

    def added(self, task: int, batch: Batch) -> Batch:
        """A batch with the task's perturbation.

        Raises:
            MissingCapability: if its samples have another shape than the first one had.
        """
        inputs = dict(batch.inputs)
        for (number, name), value in self._values.items():
            if number != task:
                continue
            if inputs[name].shape[1:] != value.shape:
                raise MissingCapability(
                    f"the inputs of task {self._models.tasks[task].name!r} cannot be perturbed",
                    why=f"samples have shapes {list(value.shape)} and {list(inputs[name].shape[1:])}",
                    fix="give all samples of a task the same shape",
                )
            inputs[name] = inputs[name] + value
        return replace(batch, inputs=inputs)

    def descend(
        self, step: int, parameters: Mapping[str, Tensor], loss: Callable[[AttackedBatch], Tensor]
    ) -> None:
        """Step number `step`, counted from 0, towards a small loss on a new batch of every task."""
        fixed = {name: each.detach() for name, each in parameters.items()}
        for value in self._values.values():
            value.requires_grad_(True)
        for task, batch, weight in self._models.draw():
            with self._models.fabric.autocast():
                value = loss(AttackedBatch(self._models, task, fixed, batch, self.added(task, batch)))
            self._models.fabric.backward(value * weight)
        self._models.average_gradients({str(key): value for key, value in self._values.items()})
        for key, value in self._values.items():
            gradient, value.grad = value.grad, None
            value.requires_grad_(False)
            if gradient is not None:
                adam_step(value, gradient, self._moments[key], step + 1, self._learning_rate)

    def attacked(self, task: int, parameters: Mapping[str, Tensor], batch: Batch) -> AttackedBatch:
        """A batch as it is and with the task's perturbation, for a model with these parameters."""
        return AttackedBatch(self._models, task, parameters, batch, self.added(task, batch))
