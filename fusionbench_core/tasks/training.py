"""The one training loop of all learned methods: steps that can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints import SafetensorsCheckpoint
from fusionbench_core.checkpoints.writer import write_safetensors
from fusionbench_core.errors import ConfigError, CorruptFile, MethodError
from fusionbench_core.methods.job import FusionJob
from fusionbench_core.methods.method import Method
from fusionbench_core.tasks.task_models import TaskModels

_SECONDS = 30.0
"""How often what is learned so far is written."""


class Training:
    """Steps of Adam on a few variables, or steps that a method takes itself.

    With a `job.directory`, what is learned is written there from time to time, when the user interrupts, and
    at the end; the same training goes on from it, and another one can start from it: `job.learned_from`.

    Args:
        job: What the method is given.
        method: The method; its parameters tell whose training a file is.
        variables: Name -> what is learned; none if the steps do no more than change what is `kept`.
        models: Where batches come from; a resumed training skips those that were seen.
        learning_rate: Of Adam.
        stage: Name of this training within the method.
        kept: Name -> further tensors that steps change in place, and that a resumed training needs.
    """

    def __init__(
        self,
        job: FusionJob,
        method: Method,
        variables: Mapping[str, Tensor],
        models: TaskModels,
        *,
        learning_rate: float = 1e-3,
        stage: str = "training",
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._job, self._name, self._variables, self._models = job, method.record.name, variables, models
        self._adam = torch.optim.Adam(list(variables.values()), lr=learning_rate) if variables else None
        self._file, self._stage = _file_of(job, method, stage), stage
        self._drawn, self._kept = models.drawn, dict(kept or {})

    @staticmethod
    def begun(job: FusionJob, method: Method, stage: str = "training") -> bool:
        """Whether an interrupted run has taken steps of that training, and kept them."""
        file = _file_of(job, method, stage)
        return file is not None and file.exists()

    def run(self, gradients: Callable[[int], float], steps: int, loss: str) -> list[float]:
        """Train, or go on; gives the loss at each step.

        Args:
            gradients: Leaves the gradient at a step, counted from 0, in the variables; gives the loss. It may
                change what is `kept`, so that doing so again does no harm: a step can be interrupted.
            steps: How many in all; none is taken any more if the job is to `finish`.
            loss: What the loss is called, for people.

        Raises:
            MethodError: if the loss or a variable is no finite number any more.
            ConfigError: if the job is to start from what another run learned, and that does not fit.
        """
        losses = self._load() or self._start()
        optimizer = self._job.fabric.setup_optimizers(self._adam) if self._adam else None
        began, done, written = time.monotonic(), len(losses), time.monotonic()
        if self._job.finish:
            return losses
        try:
            for step in range(done, steps):
                losses.append(gradients(step))
                self._models.average_gradients(self._variables)
                if optimizer is not None:
                    optimizer.step()  # pyright: ignore[reportAttributeAccessIssue]
                    optimizer.zero_grad()  # pyright: ignore[reportAttributeAccessIssue]
                self._check(losses[-1], step)
                self._drawn = self._models.drawn
                left = (time.monotonic() - began) / (step + 1 - done) * (steps - step - 1)
                self._job.progress(step + 1, steps, f"{loss} {losses[-1]:.4f}, {_duration(left)} left")
                if time.monotonic() - written > _SECONDS:
                    self._save(losses)
                    written = time.monotonic()
        except KeyboardInterrupt:
            # A loss without its step is not kept, nor the batch that was drawn for it.
            self._save(losses[: self._taken(len(losses))])
            raise
        self._save(losses)
        return losses

    def _check(self, loss: float, step: int) -> None:
        if math.isfinite(loss) and all(torch.isfinite(each).all() for each in self._variables.values()):
            return
        raise MethodError(
            f"{self._name}: the loss or its gradient is NaN or Inf",
            step=step + 1,
            fix="try a smaller learning rate, or another fabric.precision",
        )

    def _taken(self, losses: int) -> int:
        if self._adam is None:
            return losses
        return min((int(state["step"]) for state in self._adam.state.values()), default=0)

    def _save(self, losses: list[float]) -> None:
        if self._file is None or not losses or not self._job.fabric.is_global_zero:
            return
        state = {
            "losses": torch.tensor(losses, dtype=torch.float64),
            "drawn": torch.tensor(self._drawn),
        }
        state |= {f"kept/{name}": tensor for name, tensor in self._kept.items()}
        for name, variable in self._variables.items():
            assert self._adam is not None
            moments = self._adam.state[variable]
            state[f"variables/{name}"] = variable.detach()
            state[f"mean/{name}"], state[f"square/{name}"] = moments["exp_avg"], moments["exp_avg_sq"]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(self._file, {name: tensor.cpu().contiguous() for name, tensor in state.items()})

    def _load(self) -> list[float]:
        state = self._read()
        if self._job.fabric.world_size > 1:
            state = self._job.fabric.broadcast(state)
        if state is None:
            return []
        losses = state["losses"].tolist()
        for name, variable in self._variables.items():
            assert self._adam is not None
            variable.data.copy_(state[f"variables/{name}"])
            self._adam.state[variable] = {
                "step": torch.tensor(float(len(losses))),
                "exp_avg": state[f"mean/{name}"].to(variable.device, copy=True),
                "exp_avg_sq": state[f"square/{name}"].to(variable.device, copy=True),
            }
        for name, tensor in self._kept.items():
            tensor.copy_(state[f"kept/{name}"])
        self._drawn = int(state["drawn"])
        self._models.skip(self._drawn - self._models.drawn)
        return losses

    def _start(self) -> list[float]:
        """Take over what another run has learned; its steps do not count."""
        place = self._job.learned_from
        if place is None:
            return []
        if not self._variables:
            raise ConfigError(
                f"{self._name} with these settings learns nothing that another run could start from",
                config="learned_from",
                fix="remove it; `fb run --resume` goes on with a run that was interrupted",
            )
        files = sorted(place.glob(f"{self._stage}-*.safetensors"), key=lambda file: file.stat().st_mtime)
        if not files:
            raise ConfigError(
                f"nothing that {self._name} could start from was learned there",
                config="learned_from",
                directory=place.parent,
                why=f"there is no {self._stage} among {_named(place)}",
                fix="give the directory of a run of the same method over the same models",
            )
        state = SafetensorsCheckpoint([files[-1]])
        for name, variable in self._variables.items():
            key = f"variables/{name}"
            if key not in state or state.info(key).shape != tuple(variable.shape):
                raise ConfigError(
                    f"what was learned there does not fit {self._name} with these settings and models",
                    config="learned_from",
                    file=files[-1],
                    why=f"{name} should be {list(variable.shape)}, and is "
                    f"{list(state.info(key).shape) if key in state else 'missing'}",
                    fix="give the directory of a run of the same method over the same models",
                )
            variable.data.copy_(state.tensor(key))
        return []

    def _read(self) -> dict[str, Tensor] | None:
        """What the first process finds in the file."""
        if self._file is None or not self._file.exists() or not self._job.fabric.is_global_zero:
            return None
        try:
            state = SafetensorsCheckpoint([self._file])
            return {name: state.tensor(name).clone() for name in state}
        except CorruptFile:
            return None


def _file_of(job: FusionJob, method: Method, stage: str) -> Path | None:
    if job.directory is None:
        return None
    facts = [method.record.name, method.model_dump(mode="json"), job.seed, list(job.pool)]
    facts += [] if job.learned_from is None else [str(job.learned_from)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return job.directory / f"{stage}-{key}.safetensors"


def _named(place: Path) -> str:
    return (
        ", ".join(sorted({file.name.rpartition("-")[0] for file in place.glob("*.safetensors")}))
        or "its files"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
