"""Members of an ensemble: all in memory, or one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from fusionbench_core import (
    Checkpoint,
    ConfigError,
    LiveMembers,
    Members,
    ModelPool,
    available_memory,
    load_into,
)

InMemory = Annotated[
    Literal["auto", "all", "one"],
    Field(
        description="models in memory: `all` at once; `one`, which reads all weights again for every batch; "
        "`auto`, all if they fit into half of the free memory and one if not. The outputs are the same"
    ),
]


class SwappedMembers(Members):
    """Members that take turns in one live module: their weights are read into it when they are run.

    Args:
        checkpoints: Name -> lazy view of the weights.
        trunk: A live module of their architecture, which they share.
        model: What is run: the trunk, or the trunk under a head.
    """

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], trunk: nn.Module, model: nn.Module | None = None
    ) -> None:
        super().__init__(tuple(checkpoints))
        self.checkpoints = dict(checkpoints)
        self.trunk = trunk
        self.model = trunk if model is None else model

    def attach(self, head: Callable[[nn.Module], nn.Module]) -> SwappedMembers:
        return SwappedMembers(self.checkpoints, self.trunk, head(self.trunk))

    def member(self, name: str) -> nn.Module:
        load_into(self.trunk, self.checkpoints[name])
        return LiveMembers({name: self.trunk}).member(name)

    def forward(self, *args: Any, **kwargs: Any) -> list[Any]:
        outputs = []
        for checkpoint in self.checkpoints.values():
            load_into(self.trunk, checkpoint)
            outputs.append(self.model(*args, **kwargs))
        return outputs


def members_of(pool: ModelPool, names: Sequence[str], in_memory: InMemory) -> Members:
    """These models of a pool.

    Raises:
        ConfigError: if one shall be in memory at a time, and the user has them all there.
    """
    if all(pool[name].source is not None for name in names):
        return gather(names, in_memory, pool.module, pool.checkpoint)
    if in_memory == "one":
        raise ConfigError(
            "the models are in memory already, so they cannot take turns there",
            config="method.in_memory",
            fix="give them as paths, or leave out in_memory",
        )
    return gather(names, "all", pool.module, pool.checkpoint)


def bytes_of_members(pool: ModelPool, in_memory: InMemory) -> int:
    """Bytes of all models of a pool, or of the largest where they take turns; from headers."""
    sizes = [pool.live_bytes(name) for name in pool]
    here = any(model.source is None for model in pool.models.values())
    together = here or in_memory == "all" or (in_memory == "auto" and _fits(sum(sizes)))
    return sum(sizes) if together else max(sizes)


def gather(
    names: Sequence[str],
    in_memory: InMemory,
    module: Callable[[str], nn.Module],
    checkpoint: Callable[[str], Checkpoint],
) -> Members:
    """Models without gradients, in eval mode.

    Args:
        names: Their names, in the order of their outputs.
        in_memory: How many of them are in memory at once.
        module: Makes a live one.
        checkpoint: Gives a lazy view of one's weights.
    """
    if in_memory == "all" or (in_memory == "auto" and _fit(checkpoint(name) for name in names)):
        return LiveMembers({name: module(name).requires_grad_(False).eval() for name in names})
    trunk = module(names[0]).requires_grad_(False).eval()
    return SwappedMembers({name: checkpoint(name) for name in names}, trunk)


def _fit(checkpoints: Iterable[Checkpoint]) -> bool:
    infos = (checkpoint.info(name) for checkpoint in checkpoints for name in checkpoint)
    # Live modules are in fp32 at least.
    return _fits(sum(max(info.nbytes, 4 * info.numel) for info in infos))


def _fits(size: int) -> bool:
    free = available_memory()
    return free is None or size <= free // 2
