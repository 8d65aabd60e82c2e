"""Layers of several checkpoints, one upon the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo
from fusionbench_core.checkpoints.renamed import hash_names
from fusionbench_core.errors import IncompatibleModels
from fusionbench_core.layers import count_layers, layer_of, place_of, stack_of


@dataclass(frozen=True)
class Slice:
    """Layers `start` to `stop`, the last one not counted, of a checkpoint."""

    checkpoint: Checkpoint
    start: int
    stop: int


class StackedCheckpoint(Checkpoint):
    """View of slices of checkpoints as one model, its layers numbered anew.

    What comes before the layers is that of the first slice's checkpoint, what comes after them that of
    the last one's; other stacks, e.g. an encoder beside the decoder that is sliced, are the first one's.

    Args:
        slices: From the lowest layers up; a checkpoint may be in several.
        pattern: Finds the layer's number in a name.

    Raises:
        IncompatibleModels: if a slice goes beyond the layers of its checkpoint, or there are no layers
            or several stacks of them.
    """

    def __init__(self, slices: Sequence[Slice], pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._slices = tuple(slices)
        self.location = " + ".join(f"{s.checkpoint.location}[{s.start}:{s.stop}]" for s in slices)
        self.stack, self.layers_of_first = self._only_stack(slices[0].checkpoint)
        self._origin = dict(self._before(), **self._layers(), **self._after())
        self._tied = self._ties()

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(each.stop - each.start for each in self._slices)

    def keys(self) -> tuple[str, ...]:
        return tuple(self._origin)

    def info(self, key: str) -> TensorInfo:
        checkpoint, name = self._origin[key]
        return checkpoint.info(name)

    def tensor(self, key: str) -> Tensor:
        checkpoint, name = self._origin[key]
        return checkpoint.tensor(name)

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        checkpoint, name = self._origin[key]
        return checkpoint.chunk(name, start, stop)

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._tied

    def identity(self) -> str:
        each = {id(checkpoint): checkpoint.identity() for checkpoint, _ in self._origin.values()}
        names = {key: f"{each[id(where)]}:{name}" for key, (where, name) in self._origin.items()}
        return f"stack:{hash_names(names)}"

    def _before(self) -> dict[str, tuple[Checkpoint, str]]:
        first = self._slices[0].checkpoint
        return {name: (first, name) for name in first if self._is_outside(name) and not self._is_after(name)}

    def _after(self) -> dict[str, tuple[Checkpoint, str]]:
        last = self._slices[-1].checkpoint
        return {name: (last, name) for name in last if self._is_outside(name) and self._is_after(name)}

    def _layers(self) -> dict[str, tuple[Checkpoint, str]]:
        found: dict[str, tuple[Checkpoint, str]] = {}
        offset = 0
        for each in self._slices:
            stack, layers = self._only_stack(each.checkpoint)
            if not 0 <= each.start < each.stop <= layers:
                raise IncompatibleModels(
                    f"there are no layers {each.start} to {each.stop} in this model",
                    model=each.checkpoint.location,
                    why=f"it has {layers}, counted from 0; the end is not counted",
                    fix=f"choose a range within [0, {layers}]",
                )
            for name in each.checkpoint:
                match = self._pattern.search(name)
                if match is None or name[: match.start("layer")] != stack:
                    continue
                if each.start <= int(match["layer"]) < each.stop:
                    number = offset + int(match["layer"]) - each.start
                    new = f"{self.stack}{number}{name[match.end('layer') :]}"
                    found[new] = (each.checkpoint, name)
            offset += each.stop - each.start
        return found

    def _only_stack(self, checkpoint: Checkpoint) -> tuple[str, int]:
        counted = count_layers(checkpoint, self._pattern)
        stacks = {str(stack_of(name, self._pattern)): layers for name, layers in counted.items()}
        if len(stacks) == 1:
            return next(iter(stacks.items()))
        shown = ", ".join(f"{stack}{{layer}} ({layers})" for stack, layers in sorted(stacks.items()))
        raise IncompatibleModels(
            "this model has several stacks of layers" if stacks else "no layers are found in this model",
            model=checkpoint.location,
            why=f"there are {shown}"
            if stacks
            else f"its tensors are called {', '.join(list(checkpoint)[:3])}, …",
            fix="say how the layers are called, e.g. modelpool.layer_names='decoder.layers.{layer}.'",
        )

    def _is_outside(self, name: str) -> bool:
        return layer_of(name, self._pattern) is None

    def _is_after(self, name: str) -> bool:
        # A number elsewhere in the name is another stack, which stays together with the first model.
        return place_of(name, layer_of(name)) == "after"

    def _ties(self) -> dict[str, str]:
        """Names that are tied in the first checkpoint and in the last one alike."""
        first, last = self._slices[0].checkpoint.aliases, self._slices[-1].checkpoint.aliases
        return {
            name: kept
            for name, kept in first.items()
            if last.get(name) == kept and name in self._origin and kept in self._origin
        }
