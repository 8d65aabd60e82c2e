"""What methods with one task vector and a mask for each task have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fb_merging.conditioned.masked_tasks import MaskedTasks, working_dtype
from fb_merging.operations.bits import pack
from fb_merging.operations.vectors import l1_norm
from fusionbench_core import ConfigError, Fused, FusionJob, ModelMethod, ModelPool


class MaskedMethod(ModelMethod):
    """Unifies all task vectors tensor by tensor, and marks what of it each task uses.

    In memory are the base, the unified task vector, the masks as bits, and one tensor of every model.
    """

    @abstractmethod
    def unify(self, deltas: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """The unified task vector of one tensor, and a boolean mask a model; does not write to `deltas`."""

    def rescalers(self, own: Tensor, masked: Tensor) -> Tensor:
        """One factor a model; `own` and `masked` are the L1 norms of whole task vectors, fp64 `(models,)`."""
        return torch.ones_like(own)

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        pool = job.pool
        names = pool.names if self.capabilities.ordered else sorted(pool.names)
        trunk = pool.module().requires_grad_(False)
        tasks = _tasks_of(pool, names)
        module = MaskedTasks(dict.fromkeys(tasks, 1.0), trunk, _merged_tensors(pool, trunk))
        own, masked = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
        kept, entries = [0] * len(names), 0
        for place, name in enumerate(module.tensors):
            deltas = _deltas(pool, names, name, working_dtype(module.task_vector[place]))
            unified, masks = self.unify(deltas, names)
            module.task_vector[place].copy_(unified)
            packed = module.task_masks.get_buffer(str(place))
            for index, (delta, mask) in enumerate(zip(deltas, masks)):
                packed[index] = pack(mask)
                own[index] += l1_norm(delta)
                masked[index] += l1_norm(torch.where(mask, unified, 0))
                kept[index] += int(mask.sum())
            entries += unified.numel()
            job.progress(place + 1, len(module.tensors), name)
        module.rescalers = dict(zip(tasks, self.rescalers(own, masked).tolist()))
        return Fused.of_module(
            module.eval(),
            builder="merging/masked_tasks",
            arguments={"rescalers": module.rescalers, "tensors": list(module.tensors)},
            details={
                "mask_density": {task: count / max(entries, 1) for task, count in zip(tasks, kept)},
                "rescaler": module.rescalers,
            },
        )


def _tasks_of(pool: ModelPool, names: Sequence[str]) -> list[str]:
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


def _merged_tensors(pool: ModelPool, trunk: nn.Module) -> list[str]:
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


def _deltas(pool: ModelPool, names: Sequence[str], tensor: str, dtype: torch.dtype) -> list[Tensor]:
    base = pool.checkpoint().tensor(tensor).to(dtype)
    return [pool.checkpoint(name).tensor(tensor).to(dtype) - base for name in names]
