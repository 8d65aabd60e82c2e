"""The model that RanDeS gives: one superposition of all task vectors, and random signs to find each in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_merging.conditioned.trunk_and_tasks import TrunkAndTasks
from fusionbench_core import BuildContext


class SuperposedTasks(TrunkAndTasks):
    r"""For each task $t$ the model $\theta_0 + \lambda\,S\,C_t$, with signs $C_t$ drawn anew when needed.

    It costs two models, whatever the number of tasks.

    Args:
        seeds: Task -> seed of its signs.
        scaling_factor: $\lambda$.
        trunk: The base $\theta_0$, a live module; kept, not copied.
        tensors: Names of the tensors that the superposition changes, in the trunk's state dict.

    Attributes:
        superposition: $S = \sum_t \tau_t C_t$: a tensor for each of `tensors`, in the trunk's dtype.
    """

    own = ("superposition",)

    def __init__(
        self, seeds: Mapping[str, int], scaling_factor: float, trunk: nn.Module, tensors: Sequence[str]
    ) -> None:
        super().__init__(tuple(seeds), trunk, tensors)
        self.seeds = dict(seeds)
        self.scaling_factor = scaling_factor
        self.superposition = nn.ParameterList(
            nn.Parameter(torch.zeros_like(each), requires_grad=False) for each in self.shaped
        )

    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        found = self.superposition[place].to(base.dtype)
        return torch.add(base, found * self.signs(task, place), alpha=self.scaling_factor)

    def signs(self, task: str, place: int) -> Tensor:
        """$C_t$ of one tensor: 1 or -1 for each column `(n,)`, or for each entry if it has no columns."""
        shape = self.superposition[place].shape
        generator = torch.Generator().manual_seed(self.seeds[task] + place)
        return (
            torch.randint(0, 2, shape[1:] if len(shape) > 1 else shape, generator=generator).mul_(2).sub_(1)
        )


def build_superposed_tasks(context: BuildContext) -> SuperposedTasks:
    """The module that `arguments` describe (`seeds`, `scaling_factor` and `tensors`), with an empty sum."""
    given = context.arguments
    return SuperposedTasks(given["seeds"], given["scaling_factor"], context.skeleton(), given["tensors"])
