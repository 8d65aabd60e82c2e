"""BitDelta for several models over one base."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.conditioned.records import PACKED_BITDELTA
from fb_merging.conditioned.signed_tasks import SignedTasks
from fb_merging.conditioned.tasks_of_pool import deltas_of, merged_tensors, one_task_each
from fb_merging.conditioned.trunk_and_tasks import working_dtype
from fb_merging.operations.bits import pack
from fb_merging.operations.matrices import named
from fb_merging.operations.vectors import l1_norm
from fusionbench_core import Fused, FusionJob, ModelMethod, implements


@implements(PACKED_BITDELTA)
class PackedBitDelta(ModelMethod):
    r"""One base, and for each task the signs of its task matrices, as bits, and a number a matrix.

    With $\tau_t = \theta_t - \theta_0$ a matrix of $n$ entries, and the sign of 0 taken as -1:

    $$\theta^{(t)} = \theta_0 + \alpha_t\,\mathrm{sgn}(\tau_t), \qquad
      \alpha_t = \tfrac1n \lVert \tau_t \rVert_1$$

    Notes:
        Each task's model is what `bitdelta` makes of it; here it stays packed, in memory and on disk: a bit
        of every entry instead of 16 or 32. Tensors that are no matrix, and those named in `exclude`, are
        kept whole for every task, as the paper does with embeddings and heads. The paper then trains
        $\alpha_t$ on data to match the model's outputs, which is not done here.
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.

    Reference:
        Liu et al., BitDelta: Your Fine-Tune May Only Be Worth One Bit, NeurIPS 2024, arXiv:2402.10193.
    """

    exclude: tuple[str, ...] = Field(
        default=(), description="glob patterns of matrices to keep whole for every task, e.g. of embeddings"
    )

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        pool, names = job.pool, sorted(job.pool.names)
        trunk = pool.module().requires_grad_(False)
        tasks = one_task_each(pool, names)
        state = trunk.state_dict()
        tensors = merged_tensors(pool, trunk)
        matrices = [name for name in tensors if self._is_packed(name, state[name])]
        whole = [name for name in tensors if name not in matrices]
        module = SignedTasks({name: {} for name in matrices}, tasks, trunk, whole)
        for place, name in enumerate(module.tensors):
            if name in matrices:
                deltas = deltas_of(pool, names, name, working_dtype(state[name]))
                module.scales[name] = {
                    task: l1_norm(delta) / delta.numel() for task, delta in zip(tasks, deltas)
                }
                bits = torch.stack([pack(delta > 0) for delta in deltas])
                module.task_signs.get_buffer(str(place)).copy_(bits)
            else:
                each = torch.stack([pool.checkpoint(model).tensor(name) for model in names])
                module.task_tensors.get_buffer(str(place)).copy_(each)
            job.progress(place + 1, len(module.tensors), name)
        return Fused.of_module(
            module.eval(),
            builder="merging/signed_tasks",
            arguments={"scales": module.scales, "tasks": tasks, "whole": whole},
        )

    def _is_packed(self, name: str, tensor: Tensor) -> bool:
        return tensor.dim() == 2 and tensor.numel() > 0 and not named(name, self.exclude)
