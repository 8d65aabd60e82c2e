"""The merged trunk under the heads of all tasks, and the batches it is adapted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fusionbench_core.errors import MissingCapability
from fusionbench_core.methods.job import FusionJob
from fusionbench_core.tasks.adaptation import AdaptationTask
from fusionbench_core.tasks.task import Batch, Split

Loss = Callable[[int, Tensor, Batch], Tensor]
"""Position of the task, logits `(n, classes)` and their batch -> mean loss of its samples, a scalar."""

Objective = Callable[[int, Mapping[str, Tensor], Batch], Tensor]
"""Position of the task, parameters of the trunk and a batch -> mean loss of its samples, a scalar."""


class TaskModels:
    """One task model for each model of the pool, over a trunk that all of them share, and endless batches.

    On several processes every one draws the same batches and works on its share of their samples, so the
    result is that of one process.

    Args:
        job: What a method is given.
        method: Name of the method, for messages and random numbers.
        trunk: The trunk whose parameters are replaced.
        split: Where the samples come from.
        batch_size: Samples a task and step, over all processes.
        labelled: Whether batches carry labels.
        tasks: The tasks, if they are not those of the pool's models.

    Raises:
        MissingCapability: naming the models without a task.
    """

    def __init__(
        self,
        job: FusionJob,
        method: str,
        trunk: nn.Module,
        *,
        split: Split,
        batch_size: int,
        labelled: bool = False,
        tasks: Sequence[AdaptationTask] | None = None,
    ) -> None:
        self.fabric = job.fabric
        self.tasks = tasks_of(job, method) if tasks is None else list(tasks)
        self.models = [task.attach(trunk).to(self.fabric.device) for task in self.tasks]
        self.drawn = 0
        self._streams = [
            task.endless(split, seed=_seed(job, method, task.name), batch_size=batch_size, labelled=labelled)
            for task in self.tasks
        ]

    def skip(self, rounds: int) -> None:
        """Draw so many batches of every task for nothing, as a run did that was interrupted."""
        for _ in range(rounds):
            for stream in self._streams:
                next(stream)
        self.drawn += rounds

    def draw(self) -> Iterator[tuple[int, Batch, float]]:
        """This process's share of one batch of every task: task, batch, and the weight of its mean.

        The mean over processes of weighted mean losses is the mean loss of the whole batch.
        """
        self.drawn += 1
        rank, world = self.fabric.global_rank, self.fabric.world_size
        for position, stream in enumerate(self._streams):
            whole = next(stream)
            share = whole if world == 1 else _rows(whole, slice(rank, None, world))
            if len(share):
                yield position, share.to(self.fabric.device), len(share) * world / len(whole)

    def logits(self, task: int, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Logits of a task model whose trunk has other parameters, in the dtype it computes in."""
        model = self.models[task]
        own = {}
        for name, value in parameters.items():
            own[f"trunk.{name}"] = value.to(model.get_parameter(f"trunk.{name}").dtype)
        return functional_call(model, own, kwargs=dict(batch.inputs))

    def descend(self, merged: Mapping[str, Tensor], loss: Loss) -> float:
        """Add the gradient of the summed losses on one batch of every task to what `merged` came from.

        Returns:
            The mean of the losses.
        """
        return self.descend_on(
            merged, lambda task, leaves, batch: loss(task, self.logits(task, leaves, batch), batch)
        )

    def descend_on(self, merged: Mapping[str, Tensor], objective: Objective) -> float:
        """The same for losses that take more than one forward pass of the merged parameters.

        Gradients are gathered on the merged parameters, task by task, and carried back once: the
        activations of one task are in memory at a time, and task vectors are read once.

        Returns:
            The mean of the losses.
        """
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in merged.items()}
        total = torch.zeros((), dtype=torch.float64)
        for task, batch, weight in self.draw():
            with self.fabric.autocast():
                value = objective(task, leaves, batch) * weight
            self.fabric.backward(value)
            total += value.detach().double().cpu()
        pull_back(merged, leaves)
        if self.fabric.world_size > 1:
            total = self.fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(total, Tensor)
        return float(total) / len(self.models)

    def average_gradients(self, variables: Mapping[str, Tensor]) -> None:
        """Make the gradients of all processes the same: their mean."""
        for variable in variables.values():
            if self.fabric.world_size > 1:
                grad = torch.zeros_like(variable) if variable.grad is None else variable.grad
                mean = self.fabric.all_reduce(grad, reduce_op="mean")
                assert isinstance(mean, Tensor)
                variable.grad = mean


def pull_back(merged: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
    """Carry gradients of detached copies back to what the originals were computed from."""
    reached = [(merged[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
    reached = [(tensor, grad) for tensor, grad in reached if tensor.requires_grad]
    if reached:
        torch.autograd.backward([tensor for tensor, _ in reached], [grad for _, grad in reached])


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of the distributions that logits `(n, classes)` stand for; a scalar."""
    log_p = logits.float().log_softmax(-1)
    # The bound keeps classes that are ruled out by a logit of -inf from giving 0 · inf = NaN.
    return -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1).mean()


def tasks_of(job: FusionJob, method: str) -> list[AdaptationTask]:
    """The task of each model.

    Raises:
        MissingCapability: naming the models without one.
    """
    missing = [model for model in job.pool if job.pool.task_of(model) not in job.tasks]
    if missing:
        raise MissingCapability(
            f"{method} needs data of the task of every model",
            models=", ".join(missing),
            why=f"the task pool has {', '.join(job.tasks) or 'no tasks'}",
            fix="add the tasks to the task pool, or map models to tasks with `modelpool.data`",
        )
    return [job.tasks[job.pool.task_of(model)] for model in job.pool]


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Modules in eval mode and without gradients of their own; as they were, afterwards."""
    modes = {module: module.training for each in modules for module in each.modules()}
    gradients = {parameter: parameter.requires_grad for each in modules for parameter in each.parameters()}
    try:
        for each in modules:
            each.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, wanted in gradients.items():
            parameter.requires_grad_(wanted)


def _seed(job: FusionJob, *key: str) -> int:
    return int(torch.randint(2**31, (), generator=job.generator(*key)))


def _rows(batch: Batch, rows: slice) -> Batch:
    inputs = {name: tensor[rows] for name, tensor in batch.inputs.items()}
    labels = None if batch.labels is None else batch.labels[rows]
    return Batch(inputs, labels, batch.indices[rows])
