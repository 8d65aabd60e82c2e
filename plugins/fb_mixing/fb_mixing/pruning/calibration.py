"""Run a model on calibration data, and catch what its mixtures see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import reduce
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fb_mixing.pruning.routed import RoutedExperts
from fusionbench_core import FusionJob, MissingCapability, ModelMethod, ModelPool

Inputs = Mapping[str, Tensor]
"""What a model's forward takes, by name."""


class CalibratedMethod(ModelMethod):
    """Looks at unlabelled data of the model's task. As for statistics, the run's seed chooses the samples."""

    example_architecture = "mixtures"

    samples: PositiveInt = Field(default=128, description="samples of the task that are looked at")
    batch_size: PositiveInt = Field(default=8, description="samples that go through the model at once")

    def memory(self, pool: ModelPool) -> int:
        """The model, and what pruning copies of it: at most as much again."""
        return 2 * pool.live_bytes(next(iter(pool)))

    def batches(self, job: FusionJob) -> list[Inputs]:
        """The calibration data: some of the task's training samples.

        Raises:
            MissingCapability: if the model has no task.
        """
        (model,) = job.pool
        task = job.pool.task_of(model)
        if task not in job.tasks:
            raise MissingCapability(
                f"there is no task for model {model!r}, whose data experts are chosen by",
                why=f"the task pool has {', '.join(job.tasks) or 'no tasks'}",
                fix=f"add the task to the task pool, or say which one it is: modelpool.data.{model}=TASK",
            )
        served = job.tasks[task].batches(
            "train", limit=self.samples, seed=job.seed, batch_size=self.batch_size
        )
        return [batch.to(job.fabric.device).inputs for batch in served]


def widen(module: nn.Module) -> dict[str, torch.dtype]:
    """Have a module compute in fp32, or fp64 if it holds any; gives the dtypes that its tensors had."""
    had = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    floating = (dtype for dtype in had.values() if dtype.is_floating_point)
    module.to(reduce(torch.promote_types, floating, torch.float32))
    return had


def narrow(module: nn.Module, had: Mapping[str, torch.dtype]) -> nn.Module:
    """Undo :func:`widen`; new tensors stay as they are. Gives the module."""
    for name, tensor in module.named_parameters():
        tensor.data = tensor.data.to(had.get(name, tensor.dtype))
    for name, tensor in module.named_buffers():
        tensor.data = tensor.data.to(had.get(name, tensor.dtype))
    return module


@torch.no_grad()
def tokens_seen(
    model: nn.Module, mixtures: Sequence[RoutedExperts], batches: Sequence[Inputs]
) -> Iterator[dict[str, Tensor]]:
    """For each batch: name of a mixture -> the tokens that it sees, `(n, in)`, padding left out.

    The model is run as far as the last of the mixtures only.
    """
    dtype = mixtures[0].gate.get_parameter("weight").dtype
    for inputs in batches:
        given = {key: each.to(dtype) if each.is_floating_point() else each for key, each in inputs.items()}
        caught: dict[str, Tensor] = {}
        with ExitStack() as stack, suppress(_Enough):
            for mixture in mixtures:
                hook = _catch(caught, mixture.name, len(mixtures))
                stack.callback(mixture.block.register_forward_pre_hook(hook).remove)
            model(**given)
        yield {name: _counted(tokens, inputs.get("attention_mask")) for name, tokens in caught.items()}


class _Enough(Exception):
    """All that was asked for has been seen."""


def _catch(caught: dict[str, Tensor], name: str, total: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(block: nn.Module, given: tuple[Any, ...]) -> None:
        caught[name] = given[0]
        if len(caught) == total:
            raise _Enough

    return hook


def _counted(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens `(..., in)` as `(n, in)`; those only that a mask, if it is theirs, says to count."""
    if mask is None or mask.shape != tokens.shape[:-1]:
        return tokens.flatten(0, -2)
    return tokens[mask.bool()]
