"""The model that representation surgery gives: one trunk, and small corrections of what it gives a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fb_merging.conditioned.trunk_and_tasks import TrunkAndTasks
from fusionbench_core import BuildContext

Representation = dict[str, Tensor]
"""Name -> floating-point tensor that a trunk gives, the empty name if it gives just one."""


class SurgeryModel(TrunkAndTasks):
    r"""For each task a trunk whose representations are corrected, $z - U_t\,\mathrm{relu}(D_t z)$.

    Args:
        tasks: Names of the tasks.
        trunk: The merged trunk; kept, not copied.
        widths: Name of a representation that the trunk gives -> its last dimension.
        rank: Rows of $D_t$.

    Attributes:
        down: For each task, in their order, and each representation: $D_t$, `(rank, width)`, in the trunk's
            dtype.
        up: $U_t$, `(width, rank)`.
    """

    own = ("down", "up")

    def __init__(self, tasks: Sequence[str], trunk: nn.Module, widths: Mapping[str, int], rank: int) -> None:
        super().__init__(tasks, trunk, ())
        self.widths = dict(widths)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        dtype = next((each.dtype for each in trunk.parameters() if each.is_floating_point()), torch.float32)
        for _ in self.tasks:
            for width in self.widths.values():
                self.down.append(nn.Parameter(torch.zeros(rank, width, dtype=dtype), requires_grad=False))
                self.up.append(nn.Parameter(torch.zeros(width, rank, dtype=dtype), requires_grad=False))

    def place(self, task: int, name: str) -> int:
        """Where the matrices of a task and representation are in `down` and `up`."""
        return task * len(self.widths) + list(self.widths).index(name)

    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        return base  # only what the trunk gives is another one for each task

    def view(self, task: str) -> nn.Module:
        """A copy of the trunk that corrects its representations for the task."""
        index = self.tasks.index(task)
        module = super().view(task)
        matrices = {}
        for name in self.widths:
            place = self.place(index, name)
            matrices[name] = self.down[place].detach().clone(), self.up[place].detach().clone()
        module.register_forward_hook(Correction(matrices))
        return module


class Correction:
    """A forward hook that corrects the representations a trunk gives."""

    def __init__(self, matrices: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._matrices = dict(matrices)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        def change(name: str, value: Tensor) -> Tensor:
            if name not in self._matrices:
                return value
            down, up = (matrix.to(value) for matrix in self._matrices[name])
            return corrected(value, down, up)

        return with_representations(output, change)


def corrected(z: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """`z - U relu(D z)` for representations `(…, width)`."""
    return z - torch.relu(z @ down.T) @ up.T


def representations(output: Any) -> Representation:
    """The floating-point tensors, of one dimension at least, that a trunk gives."""
    found: Representation = {}

    def note(name: str, value: Tensor) -> Tensor:
        found[name] = value
        return value

    with_representations(output, note)
    return found


def with_representations(output: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """What a trunk gives, with `change(name, tensor)` in place of its representations; not nested ones."""
    if _is_representation(output):
        return change("", output)
    if isinstance(output, Mapping):
        items = {key: _changed(key, value, change) for key, value in output.items()}
        return items if type(output) is dict else type(output)(**items)
    if isinstance(output, (tuple, list)):
        parts = [_changed(str(index), value, change) for index, value in enumerate(output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def build_surgery(context: BuildContext) -> SurgeryModel:
    """The module that `arguments` describe (`tasks`, `widths` and `rank`), without corrections."""
    arguments = context.arguments
    return SurgeryModel(tuple(arguments["tasks"]), context.skeleton(), arguments["widths"], arguments["rank"])


def _changed(name: str, value: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    return change(name, value) if _is_representation(value) else value


def _is_representation(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1
