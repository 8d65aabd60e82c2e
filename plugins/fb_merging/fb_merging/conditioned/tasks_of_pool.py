"""What methods with one model a task ask of a pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionbench_core import ConfigError, ModelPool


def one_task_each(pool: ModelPool, names: Sequence[str]) -> list[str]:
    """The tasks of models.

    Raises:
        ConfigError: if two have the same.
    """
    tasks = [pool.task_of(name) for name in names]
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise ConfigError(
            f"several models are for the task {twice[0]!r}",
            config="modelpool.data",
            why="this method gives one model for each task",
            fix="leave out all but one of them, or merge them first",
        )
    return tasks


def merged_tensors(pool: ModelPool, trunk: nn.Module) -> list[str]:
    """Names of the floating-point tensors in scope that all models have; of tied ones the first."""
    names, seen = [], set()
    for name, tensor in trunk.state_dict().items():
        everywhere = all(name in pool.checkpoint(model) for model in (None, *pool))
        if not (tensor.is_floating_point() and everywhere and pool.merges(name)):
            continue
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            names.append(name)
        seen.add(tensor.data_ptr())
    return names


def deltas_of(pool: ModelPool, names: Sequence[str], tensor: str, dtype: torch.dtype) -> list[Tensor]:
    """Task vectors of one tensor."""
    base = pool.checkpoint().tensor(tensor).to(dtype)
    return [pool.checkpoint(name).tensor(tensor).to(dtype) - base for name in names]
