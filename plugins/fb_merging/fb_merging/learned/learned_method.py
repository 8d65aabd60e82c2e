"""What methods have in common that learn one merged model by gradient descent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fusionbench_core import (
    Batch,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    TaskModels,
    Training,
    curve,
    frozen,
    mean_entropy,
)


class LearnedMethod(ModelMethod):
    """Learns the variables of a :class:`Parameterization` on batches of all tasks.

    A method gives its parameterization, and its loss if that is not the entropy of the predictions. All else
    is done here: reading the models, the batches, the loop, several processes, the report.
    """

    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    steps: int = Field(default=100, ge=0, description="optimiser steps")
    batch_size: int = Field(default=16, gt=0, description="samples a task and step, over all devices")
    split: Literal["train", "validation", "test"] = Field(
        default="validation", description="split that is adapted on; test only if the run is transductive"
    )

    copies: ClassVar[tuple[float, float]] = (1, 3.5)
    """What is held at most, in copies of a live model: for each model of the pool, and besides.

    By default a task vector each; the base, the merged parameters and their gradients.
    """

    def memory(self, pool: ModelPool) -> int:
        return held(pool, self.copies)

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """A few steps show all there is to check."""
        return {"steps": 2, "learning_rate": 0.01, "batch_size": 8}

    @property
    def loss_name(self) -> str:
        """What is made small, for people."""
        return "entropy"

    @abstractmethod
    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        """The merged model as a function of what is learned."""

    def loss(self, models: TaskModels, task: int, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss of the merged model on a batch of a task; by default the entropy of its predictions."""
        return mean_entropy(logits)

    def train(self, job: FusionJob, merged: Parameterization, models: TaskModels) -> dict[str, list[float]]:
        """Learn the variables; gives the loss at each step of each stage of the training."""

        def loss(task: int, logits: Tensor, batch: Batch) -> Tensor:
            return self.loss(models, task, logits, batch)

        training = Training(job, self, merged.variables, models, learning_rate=self.learning_rate)
        losses = training.run(
            lambda step: models.descend(merged.merged(step), loss), self.steps, self.loss_name
        )
        return {self.loss_name: losses}

    def fuse(self, job: FusionJob) -> Fused:
        trunk, space = self.read(job)
        if not space.base:
            return Fused.weights(space.buffers)
        models = self.task_models(job, trunk)
        merged = self.parameterize(job, space)
        losses = {}
        if any(variable.numel() for variable in merged.variables.values()):
            with frozen(models.models):
                losses = self.train(job, merged, models)
        details = {**merged.details(), **loss_curve(losses, self.loss_name)}
        return Fused.weights(space.state(merged.final()), details=details)

    def read(self, job: FusionJob) -> tuple[nn.Module, ParameterSpace]:
        """The base as a live trunk on the device, with the merged buffers, and what is merged."""
        trunk = job.pool.module().to(job.fabric.device)
        space = ParameterSpace.of(job.pool, trunk, job.fabric.device)
        trunk.load_state_dict(space.buffers, strict=False)
        return trunk, space

    def task_models(self, job: FusionJob, trunk: nn.Module) -> TaskModels:
        """The tasks to adapt to, with labels if the method declares their need."""
        return TaskModels(
            job,
            self.record.name,
            trunk,
            split=self.split,
            batch_size=self.batch_size,
            labelled="labels" in self.capabilities.tasks,
        )


def held(pool: ModelPool, copies: tuple[float, float]) -> int:
    """Bytes of so many copies of a live model, for each model of the pool and besides."""
    each, besides = copies
    return round(pool.live_bytes() * (each * len(pool) + besides))


def loss_curve(losses: Mapping[str, Sequence[float]], name: str) -> dict[str, Any]:
    """The losses as a picture of the report; nothing if there was no step."""
    if not any(losses.values()):
        return {}
    return {"losses": curve(losses, title="Adaptation", y_label=f"mean {name} (nats)")}
