"""What spherical averages have in common."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.operations.per_model import Numbers, is_list, numbers_of, values_of, weight_each
from fusionbench_core import Capabilities, Law, TensorGroup, TensorMethod


class SphericalMethod(TensorMethod):
    """Averages models, or their task vectors, with weights that are normalised to add up to 1."""

    weights: Numbers = weight_each()
    space: Literal["weights", "task_vectors"] = Field(
        default="weights", description="average the models, or their differences from the base"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's, with the base and the laws that `weights` and `space` need."""
        capabilities = self.record.capabilities
        ordered = is_list(self.weights)
        laws = capabilities.laws - {Law.PERMUTATION} if ordered else capabilities.laws
        if self.space == "weights":
            return dataclasses.replace(capabilities, ordered=ordered, laws=laws)
        return dataclasses.replace(
            capabilities, base="required", ordered=ordered, laws=laws | {Law.TRANSLATION}
        )

    @model_validator(mode="after")
    def _weights_can_be_normalised(self) -> SphericalMethod:
        values = numbers_of(self.weights)
        if abs(math.fsum(values)) <= 1e-9 * math.fsum(map(abs, values)):
            raise ValueError("the weights must not add up to 0")
        return self

    def check(self, models: Sequence[str]) -> None:
        values_of(self.weights, models, "weights")

    def merge(self, group: TensorGroup) -> Tensor:
        weights = values_of(self.weights, group.names, "weights")
        shares = [weight / math.fsum(weights) for weight in weights]
        if self.space == "task_vectors":
            return group.base + self.average(group.deltas, shares)
        return self.average(group.models, shares)

    @abstractmethod
    def average(self, tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """One tensor of the shape of all `tensors`; the shares add up to 1."""
