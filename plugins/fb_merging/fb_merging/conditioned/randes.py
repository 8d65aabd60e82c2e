"""RanDeS: randomized delta superposition."""

from __future__ import annotations

import torch
from pydantic import Field

from fb_merging.conditioned.records import RANDES
from fb_merging.conditioned.superposed_tasks import SuperposedTasks
from fb_merging.conditioned.tasks_of_pool import deltas_of, merged_tensors, one_task_each
from fb_merging.conditioned.trunk_and_tasks import working_dtype
from fusionbench_core import Fused, FusionJob, ModelMethod, implements


@implements(RANDES)
class RanDeS(ModelMethod):
    r"""Add task vectors up under random signs, so that each can be found again among the others.

    With task vectors $\tau_t = \theta_t - \theta_0$, and diagonal matrices $C_t$ of random signs:

    $$\theta^{(t)} = \theta_0 + \lambda\,S\,C_t, \qquad S = \sum_s \tau_s C_s, \qquad
      S\,C_t = \tau_t + \sum_{s \ne t} \tau_s C_s C_t$$

    Notes:
        What is left of the other tasks has random signs, and cancels out in part. The signs are drawn from a
        seed for each task, so that a task more costs nothing.
        Signs are by column of a matrix (by channel and place of a kernel), as in FusionBench's default mode;
        biases and norms get one an entry. $\lambda$ is FusionBench's. The paper also shuffles layers of one
        shape among each other, which is not done here.
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.

    Reference:
        Zhou et al., RanDeS: Randomized Delta Superposition for Multi-Model Compression, 2025,
        arXiv:2505.11204.
    """

    scaling_factor: float = Field(default=0.5, description="λ: multiplies the task vector that is found")

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        pool, names = job.pool, sorted(job.pool.names)
        trunk = pool.module().requires_grad_(False)
        tasks = one_task_each(pool, names)
        # Seeds a JSON file can hold, with room for one more a tensor.
        seeds = {
            task: int(torch.randint(0, 2**52, (), generator=job.generator("randes", name)))
            for task, name in zip(tasks, names)
        }
        module = SuperposedTasks(seeds, self.scaling_factor, trunk, merged_tensors(pool, trunk))
        for place, tensor in enumerate(module.tensors):
            total = torch.zeros_like(module.superposition[place], dtype=working_dtype(module.shaped[place]))
            for task, delta in zip(tasks, deltas_of(pool, names, tensor, total.dtype)):
                total += delta * module.signs(task, place)
            module.superposition[place].copy_(total)
            job.progress(place + 1, len(module.tensors), tensor)
        return Fused.of_module(
            module.eval(),
            builder="merging/superposed_tasks",
            arguments={
                "seeds": seeds,
                "scaling_factor": self.scaling_factor,
                "tensors": list(module.tensors),
            },
        )
