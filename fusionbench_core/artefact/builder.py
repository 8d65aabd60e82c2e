"""What a builder is given to rebuild a saved module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.errors import MissingCapability


def _none(name: str) -> Checkpoint:
    raise MissingCapability(
        f"there is no view of the weights of {name!r}", fix="make the context with `checkpoint`"
    )


@dataclass(frozen=True)
class BuildContext:
    """Everything a builder may use. A builder is a function `(context) -> nn.Module`; the core then
    loads the artefact's tensors into the module it gives.

    Attributes:
        arguments: What the method passed as `Fused.of_module(arguments=…)`.
        skeleton: Makes a module of the pool's architecture with arbitrary weights.
        member: Makes a live module of the pool's model of that name, with its weights.
        checkpoint: Gives a lazy view of the weights of the pool's model of that name.
    """

    arguments: Mapping[str, Any]
    skeleton: Callable[[], nn.Module]
    member: Callable[[str], nn.Module]
    checkpoint: Callable[[str], Checkpoint] = _none
