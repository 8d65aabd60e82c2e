"""What operations on the result of another method have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor

from fusionbench_core import AnyTensorMethod, Capabilities, Survey, TensorGroup, TensorMethod

_WIDTHS = ("element", "row", "tensor", "layer", "model")


def _takes_a_base(method: TensorMethod) -> TensorMethod:
    if method.capabilities.base == "forbidden":
        raise ValueError(f"{method.record.name} takes no base, and task vectors are differences from it")
    return method


Inner = Annotated[AnyTensorMethod, AfterValidator(_takes_a_base)]


def inner_method(default: Any) -> Any:
    """The field of the method whose result is changed."""
    return Field(
        default=default, description="the method whose result is changed: a name, or {name, parameters}"
    )


class PostOperation(TensorMethod):
    """Changes the task vector that another method has merged.

    What that method needs, promises and checks is derived from it.

    Attributes:
        own_scratch: Copies of a piece that the change takes beside the inner method's: a model, and at all.
    """

    own_scratch: ClassVar[tuple[float, float]] = (0, 3)

    method: Inner = inner_method("task_arithmetic")

    @property
    def capabilities(self) -> Capabilities:
        """Those of the inner method, as far as this operation keeps them."""
        own, inner = self.record.capabilities, self.method.capabilities
        return dataclasses.replace(
            inner,
            base="required",
            locality=max(own.locality, inner.locality, key=_WIDTHS.index),
            scratch=(self.own_scratch[0] + inner.scratch[0], self.own_scratch[1] + inner.scratch[1]),
            surveys=inner.surveys + self.extra_surveys,
            laws=own.laws & inner.laws,
        )

    @property
    def extra_surveys(self) -> int:
        """Reading passes on top of the inner method's."""
        return 0

    def check(self, models: Sequence[str]) -> None:
        self.method.check(models)

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return self.method.statistics()

    def survey(self) -> Survey | None:
        return self.method.survey()

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        each, besides = self.own_scratch
        return self.method.scratch(name, shape, models) + each * models + besides

    def merged(self, group: TensorGroup) -> tuple[Tensor, Tensor]:
        """The base, and the task vector that the inner method merges. The group is used up."""
        # The inner method may overwrite what it is given.
        base = group.base.clone()
        return base, self.method.merge(group) - base
