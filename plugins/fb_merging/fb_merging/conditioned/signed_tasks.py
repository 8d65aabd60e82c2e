"""The model that BitDelta gives for several tasks: signs as bits, and a number for each matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_merging.conditioned.trunk_and_tasks import TrunkAndTasks
from fb_merging.operations.bits import packed_size, unpack
from fusionbench_core import BuildContext


class SignedTasks(TrunkAndTasks):
    r"""For each task $t$ the base plus $\alpha_t\,\mathrm{sgn}\,\tau_t$ in every matrix; other tensors whole.

    A task costs a bit of every entry of a matrix, and its other tensors.

    Args:
        scales: Tensor -> task -> $\alpha_t$.
        tasks: Their names.
        trunk: The base $\theta_0$, a live module; kept, not copied.
        whole: Names of the tensors that every task has for itself.

    Attributes:
        task_signs: uint8 `(tasks, bytes)` for each matrix, packed by `operations.bits`; 1 is +.
        task_tensors: `(tasks, …)` for each tensor of `whole`, in the trunk's dtype.
    """

    own = ("task_signs", "task_tensors")

    def __init__(
        self,
        scales: Mapping[str, Mapping[str, float]],
        tasks: Sequence[str],
        trunk: nn.Module,
        whole: Sequence[str],
    ) -> None:
        super().__init__(tasks, trunk, (*scales, *whole))
        self.scales = {name: dict(each) for name, each in scales.items()}
        self.task_signs, self.task_tensors = nn.Module(), nn.Module()
        for place, (name, each) in enumerate(zip(self.tensors, self.shaped)):
            if name in self.scales:
                bits = torch.zeros(len(self.tasks), packed_size(each.numel()), dtype=torch.uint8)
                self.task_signs.register_buffer(str(place), bits)
            else:
                empty = each.new_zeros(len(self.tasks), *each.shape)
                self.task_tensors.register_buffer(str(place), empty)

    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        index, name = self.tasks.index(task), self.tensors[place]
        if name not in self.scales:
            return self.task_tensors.get_buffer(str(place))[index]
        positive = unpack(self.task_signs.get_buffer(str(place))[index], base.numel()).view_as(base)
        scale = self.scales[name][task]
        return torch.where(positive, base + scale, base - scale)


def build_signed_tasks(context: BuildContext) -> SignedTasks:
    """The module that `arguments` describe (`scales`, `tasks` and `whole`), with all signs negative."""
    given = context.arguments
    return SignedTasks(given["scales"], given["tasks"], context.skeleton(), given["whole"])
