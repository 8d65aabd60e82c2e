"""One step of a plan: what happens to one output tensor."""

from __future__ import annotations

import re
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
    """

    name: str
    action: Action
    info: TensorInfo
    source: str | None = None
    layer: int | None = None


_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|resblocks|block|encoder\.layer)\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Index of the layer in a tensor's name: the number after `layers`, `h`, `blocks`, `resblocks`, …."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None
