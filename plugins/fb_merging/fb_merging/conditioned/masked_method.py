"""What methods with one task vector and a mask for each task have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fb_merging.conditioned.masked_tasks import MaskedTasks
from fb_merging.conditioned.tasks_of_pool import deltas_of, merged_tensors, one_task_each
from fb_merging.conditioned.trunk_and_tasks import working_dtype
from fb_merging.operations.bits import pack
from fb_merging.operations.vectors import l1_norm
from fusionbench_core import Fused, FusionJob, ModelMethod


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
        tasks = one_task_each(pool, names)
        module = MaskedTasks(dict.fromkeys(tasks, 1.0), trunk, merged_tensors(pool, trunk))
        own, masked = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
        kept, entries = [0] * len(names), 0
        for place, name in enumerate(module.tensors):
            deltas = deltas_of(pool, names, name, working_dtype(module.task_vector[place]))
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
