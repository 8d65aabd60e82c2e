"""One step of a plan: what happens to one output tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fusionbench_core.checkpoints import TensorInfo

Action = Literal["merge", "equal", "copy"]


@dataclass(frozen=True)
class PlanStep:
    """What happens to one output tensor.

    Attributes:
        name: Name of the tensor.
        action: `merge` by the method; `equal`: not a floating tensor, so all models must agree or the
            rule for integers applies; `copy` from `source`.
        info: Shape and dtype of the output.
        source: For `copy`: name of the model, None for the base.
        layer: Index of the layer it belongs to, None outside the layer stack.
        layers: Number of layers of its stack, None outside.
    """

    name: str
    action: Action
    info: TensorInfo
    source: str | None = None
    layer: int | None = None
    layers: int | None = None


_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|resblocks|block|encoder\.layer)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Index of the layer in a tensor's name: the number after `layers`, `h`, `blocks`, `resblocks`, …."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def count_layers(names: Iterable[str]) -> dict[str, int]:
    """Tensor name -> number of layers of its stack, for all tensors that belong to a layer.

    Layers are of one stack if their names agree up to the index; an encoder's and a decoder's are two.
    """
    found = {name: match for name in names if (match := _LAYER.search(name))}
    counts: dict[str, int] = {}
    for name, match in found.items():
        stack = name[: match.start(1)]
        counts[stack] = max(counts.get(stack, 0), int(match.group(1)) + 1)
    return {name: counts[name[: match.start(1)]] for name, match in found.items()}
