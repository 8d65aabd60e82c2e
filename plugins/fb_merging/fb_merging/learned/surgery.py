"""Representation surgery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_merging.conditioned.tasks_of_pool import one_task_each
from fb_merging.learned.coefficients import Coefficients, Granularity, Start
from fb_merging.learned.learned_method import LearnedMethod, loss_curve
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import SURGERY
from fb_merging.learned.surgery_model import Representation, SurgeryModel, corrected, representations
from fusionbench_core import Batch, Fused, FusionJob, TaskModels, Training, frozen, implements, mean_entropy


@implements(SURGERY)
class Surgery(LearnedMethod):
    r"""Correct what the merged model represents, for each task, towards what its own model does.

    $$\hat z = z - U_t\,\mathrm{relu}(D_t z), \qquad
      \min_{U, D} \sum_t \mathbb E_{x \sim D_t} \big\| \hat z(x) - z_t(x) \big\|_1$$

    (mean over entries) where z is what the merged trunk gives and $z_t$ what model t gives.

    Notes:
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.
        The merged trunk is task arithmetic with `init_coefficient`, or AdaMerging from there in
        `merging_steps` steps; `init_coefficient` takes the `details.coefficients` of an earlier run, too.
        Every floating-point tensor that the trunk gives at top level is corrected, along its last dimension:
        the embedding of an image, or the states of all tokens.
        Running statistics are the mean of the models' for all of them, also where $z_t$ is computed.
        The paper takes 1000 steps, and 500 of AdaMerging. Data as for `adamerging`.

    Reference:
        Yang et al., Representation Surgery for Multi-Task Model Merging, ICML 2024, arXiv:2402.02705.
    """

    rank: int = Field(default=16, gt=0, description="rows of D")
    granularity: Granularity = "tensor"
    init_coefficient: Start = Field(
        default=0.3, description="coefficients of the task vectors, or `details.coefficients` of a report"
    )
    merging_steps: int = Field(default=0, ge=0, description="steps of AdaMerging on the coefficients first")

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """A few steps show all there is to check."""
        return {"steps": 2, "rank": 2, "merging_steps": 2, "batch_size": 8}

    @property
    def loss_name(self) -> str:
        return "distance"

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        return Coefficients(space, tuple(job.pool), self.granularity, self.init_coefficient)

    def fuse(self, job: FusionJob) -> Fused:
        one_task_each(job.pool, job.pool.names)
        trunk, space = self.read(job)
        models = self.task_models(job, trunk)
        merged = self.parameterize(job, space)
        losses: dict[str, list[float]] = {}
        with frozen(models.models):
            if self.merging_steps and space.base:
                training = Training(
                    job, self, merged.variables, models, learning_rate=self.learning_rate, stage="merging"
                )
                losses["entropy"] = training.run(
                    lambda step: models.descend(merged.merged(step), _entropy), self.merging_steps, "entropy"
                )
            operation = _Operation(job, self, trunk, space, merged, models)
            losses[self.loss_name] = operation.train()
        names = list(space.base)
        state = trunk.state_dict()
        for name, value in zip(names, operation.merged.values()):
            state[name].copy_(value)
        model = operation.model(trunk.cpu())
        details = {**merged.details(), **loss_curve({"distance": losses["distance"]}, "distance")}
        return Fused.of_module(
            model.eval(),
            builder="merging/surgery",
            arguments={"tasks": list(model.tasks), "widths": model.widths, "rank": self.rank},
            details=details,
        )


class _Operation:
    """Learning the corrections."""

    def __init__(
        self,
        job: FusionJob,
        method: Surgery,
        trunk: nn.Module,
        space: ParameterSpace,
        merged: Parameterization,
        models: TaskModels,
    ) -> None:
        self._job, self._method, self._trunk, self._space, self._models = job, method, trunk, space, models
        self.merged = {name: value.detach() for name, value in merged.merged(0).items()}
        self._widths = self._find_widths()
        self._matrices: dict[str, Tensor] = {}
        for task in models.tasks:
            for name, width in self._widths.items():
                generator = job.generator("surgery", task.name, name)
                # Kaiming's uniform distribution with a slope of √5, as linear layers have it.
                uniform = torch.rand(method.rank, width, generator=generator, dtype=torch.float32)
                down = 2 * uniform - 1
                self._matrices[f"{task.name}/{name}/down"] = down * width**-0.5
                self._matrices[f"{task.name}/{name}/up"] = torch.zeros(
                    width, method.rank, dtype=torch.float32
                )
        for name, matrix in self._matrices.items():
            self._matrices[name] = matrix.to(job.fabric.device).requires_grad_()

    def train(self) -> list[float]:
        """Learn the corrections; gives the mean distance at each step."""
        if not self._matrices:
            return []
        training = Training(
            self._job,
            self._method,
            self._matrices,
            self._models,
            learning_rate=self._method.learning_rate,
            stage="surgery",
        )
        return training.run(
            lambda step: self._models.descend_on({}, self._distance), self._method.steps, "distance"
        )

    def model(self, trunk: nn.Module) -> SurgeryModel:
        """The trunk with the corrections as they are."""
        names = tuple(task.name for task in self._models.tasks)
        model = SurgeryModel(names, trunk, self._widths, self._method.rank)
        for index, task in enumerate(names):
            for name in self._widths:
                down, up = self._of(task, name)
                model.down[model.place(index, name)].data.copy_(down.detach())
                model.up[model.place(index, name)].data.copy_(up.detach())
        return model

    def _of(self, task: str, name: str) -> tuple[Tensor, Tensor]:
        return self._matrices[f"{task}/{name}/down"], self._matrices[f"{task}/{name}/up"]

    def _distance(self, task: int, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean distance of the corrected representations from those of the task's own model."""
        with torch.no_grad():
            wanted = self._represent(task, self._own(task), batch)
            given = self._represent(task, self.merged, batch)
        name_of = self._models.tasks[task].name
        distances = [
            (corrected(given[name].float(), *self._of(name_of, name)) - wanted[name].float()).abs().mean()
            for name in self._widths
        ]
        return torch.stack(distances).mean()

    def _own(self, task: int) -> dict[str, Tensor]:
        """The parameters of the task's own model."""
        space = self._space
        return {name: base + space.vectors[name][task] for name, base in space.base.items()}

    def _represent(self, task: int, parameters: Mapping[str, Tensor], batch: Batch) -> Representation:
        with _watched(self._trunk) as seen, self._models.fabric.autocast():
            self._models.logits(task, parameters, batch)
        return seen

    def _find_widths(self) -> dict[str, int]:
        task = self._models.tasks[0]
        batch = next(task.batches(self._method.split, limit=1)).to(self._models.fabric.device)
        with torch.no_grad():
            return {name: z.shape[-1] for name, z in self._represent(0, self.merged, batch).items()}


@contextmanager
def _watched(trunk: nn.Module) -> Iterator[Representation]:
    """What a trunk gives while it is called."""
    seen: Representation = {}
    handle = trunk.register_forward_hook(lambda module, inputs, output: seen.update(representations(output)))
    try:
        yield seen
    finally:
        handle.remove()


def _entropy(task: int, logits: Tensor, batch: Batch) -> Tensor:
    return mean_entropy(logits)
