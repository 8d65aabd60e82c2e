"""One step of a plan: what happens to one output tensor."""

from __future__ import annotations

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
