"""AdaMerging."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from fb_merging.learned.parameters import ParameterSpace, frozen
from fb_merging.learned.records import ADAMERGING
from fusionbench_core import Batch, Fused, FusionJob, MethodError, MissingCapability, ModelMethod, implements

if TYPE_CHECKING:
    from fusionbench_core import AdaptationTask


@implements(ADAMERGING)
class AdaMerging(ModelMethod):
    r"""Learn how much of each task vector to add, by making predictions on unlabelled data certain.

    $$\theta^l = \theta_0^l + \sum_{t=1}^{T} \lambda_t^l\, (\theta_t^l - \theta_0^l), \qquad
      \min_\lambda \sum_{t=1}^{T} \mathbb E_{x \sim D_t}\, H\big(\mathrm{softmax} f_t(x; \theta)\big)$$

    where $l$ runs over the parameter tensors, $f_t$ is the merged trunk with the fixed head of task t, and
    H is Shannon's entropy in nats. Adam takes one batch of every task a step.

    Notes:
        `granularity="layer"` learns one coefficient a task and *tensor*, as the authors' code does;
        `granularity="task"` learns one a task.
        100 steps are a moderate default for small models; the paper takes 500 and FusionBench 1000.
        Data come from the validation split. The paper and FusionBench adapt on the test inputs that are
        scored afterwards, which needs `split="test"` and a transductive run here.
        Coefficients are not clamped. Gradients are gathered task by task on the merged parameters, and
        carried back to the coefficients once a step, so activations of one task are in memory at a time.
        Memory: T + 1 times the parameters in which some model differs from the base, and their gradients;
        only these have coefficients. Floating-point buffers are the mean of the models'; integer buffers and
        tensors out of scope are the base's. Tied parameters stay tied.

    Reference:
        Yang et al., AdaMerging: Adaptive Model Merging for Multi-Task Learning, ICLR 2024, arXiv:2310.02575.
    """

    granularity: Literal["layer", "task"] = Field(
        default="layer", description="one coefficient a task and tensor, or one a task"
    )
    init_coefficient: float = Field(default=0.3, description="what all coefficients start from")
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    steps: int = Field(default=100, gt=0, description="optimiser steps")
    batch_size: int = Field(default=16, gt=0, description="samples a task and step")
    split: Literal["train", "validation", "test"] = Field(
        default="validation", description="split that is adapted on; test only if the run is transductive"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """A few steps show all there is to check."""
        return {"steps": 4, "learning_rate": 0.01}

    def fuse(self, job: FusionJob) -> Fused:
        tasks = _tasks_of(job)
        trunk = job.pool.module().to(job.fabric.device)
        space = ParameterSpace.of(job.pool, trunk, job.fabric.device)
        if not space.base:
            return Fused.weights(space.buffers, details={"coefficients": {}, "entropy": []})
        trunk.load_state_dict(space.buffers, strict=False)
        models = [task.attach(trunk).to(job.fabric.device) for task in tasks]
        streams = [self._stream(job, task) for task in tasks]
        count = len(space.base) if self.granularity == "layer" else 1
        size, start = (len(tasks), count), self.init_coefficient
        coefficients = torch.full(size, start, dtype=torch.float32, device=job.fabric.device)
        coefficients.requires_grad_()
        adam = torch.optim.Adam([coefficients], lr=self.learning_rate)
        optimizer: Any = job.fabric.setup_optimizers(adam)
        curve = []
        with frozen(models):
            for step in range(1, self.steps + 1):
                curve.append(_descend(job, space, coefficients, models, streams))
                optimizer.step()
                optimizer.zero_grad()
                if not (math.isfinite(curve[-1]) and torch.isfinite(coefficients).all()):
                    raise MethodError(
                        "adamerging: the entropy of the predictions or its gradient is NaN or Inf",
                        step=step,
                        fix="try a smaller learning rate, or another fabric.precision",
                    )
                job.progress(step, self.steps, f"entropy {curve[-1]:.4f}")
        learned = coefficients.detach()
        details = {"coefficients": self._named(job, space, learned.tolist()), "entropy": curve}
        return Fused.weights(space.state(learned), details=details)

    def _stream(self, job: FusionJob, task: AdaptationTask) -> Iterator[Batch]:
        """Endless unlabelled batches of a task, other ones on every process."""
        generator = job.generator("adamerging", task.name, job.fabric.global_rank)
        seed = int(torch.randint(2**31, (), generator=generator))
        return task.endless(self.split, seed=seed, batch_size=self.batch_size)

    def _named(self, job: FusionJob, space: ParameterSpace, rows: list[list[float]]) -> dict[str, object]:
        if self.granularity == "task":
            return {model: row[0] for model, row in zip(job.pool, rows)}
        return {model: dict(zip(space.base, row)) for model, row in zip(job.pool, rows)}


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of the distributions that logits `(n, classes)` stand for; a scalar."""
    log_p = logits.float().log_softmax(-1)
    # The bound keeps classes that are ruled out by a logit of -inf from giving 0 · inf = NaN.
    return -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1).mean()


def _descend(
    job: FusionJob,
    space: ParameterSpace,
    coefficients: Tensor,
    models: Sequence[nn.Module],
    streams: Sequence[Iterator[Batch]],
) -> float:
    """Leave the gradient of the summed entropies in `coefficients.grad`; gives their mean, in nats."""
    merged = space.merged(coefficients)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in merged.items()}
    total = 0.0
    for model, stream in zip(models, streams):
        batch = next(stream).to(job.fabric.device)
        with job.fabric.autocast():
            loss = mean_entropy(_logits(model, leaves, batch))
        job.fabric.backward(loss)
        total += float(loss.detach())
    reached = [(merged[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
    torch.autograd.backward([tensor for tensor, _ in reached], [grad for _, grad in reached])
    if coefficients.grad is not None and job.fabric.world_size > 1:
        job.fabric.all_reduce(coefficients.grad, reduce_op="mean")
    return total / len(models)


def _logits(model: nn.Module, leaves: dict[str, Tensor], batch: Batch) -> Tensor:
    """Logits of a task model whose trunk has other parameters, in the dtype it computes in."""
    own = {
        f"trunk.{name}": leaf.to(model.get_parameter(f"trunk.{name}").dtype) for name, leaf in leaves.items()
    }
    return functional_call(model, own, kwargs=dict(batch.inputs))


def _tasks_of(job: FusionJob) -> list[AdaptationTask]:
    """The task of each model.

    Raises:
        MissingCapability: naming the models without one.
    """
    missing = [model for model in job.pool if job.pool.task_of(model) not in job.tasks]
    if missing:
        raise MissingCapability(
            "adamerging needs unlabelled data of the task of every model",
            models=", ".join(missing),
            why=f"the task pool has {', '.join(job.tasks) or 'no tasks'}",
            fix="add the tasks to the task pool, or map models to tasks with `modelpool.data`",
        )
    return [job.tasks[job.pool.task_of(model)] for model in job.pool]
