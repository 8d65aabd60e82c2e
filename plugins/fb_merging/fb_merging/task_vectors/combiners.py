"""Ways to make one task vector of several, as they are named in configs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fb_merging.operations.combine import add_all, largest_magnitude, mean_of_active, merge_elected
from fusionbench_core import ConfigError


class Combiner(BaseModel):
    """Merges task vectors that have been multiplied by their weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def check(self, weights: Sequence[float]) -> None:
        """Raise a ConfigError if the weights cannot be used."""

    @property
    def in_one_pass(self) -> str | None:
        """What `native.trim_and_elect` calls it, if it can do it."""
        return None

    def divisor(self, weights: Sequence[float]) -> float:
        """What a sum of all is divided by."""
        return 1.0

    @abstractmethod
    def apply(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """One tensor of the shape of the weighted `deltas`, which are not written to."""


class Sum(Combiner):
    """The sum of all task vectors (task arithmetic)."""

    name: Literal["sum"] = "sum"
    normalize: bool = Field(default=False, description="divide by the sum of the weights")

    def check(self, weights: Sequence[float]) -> None:
        if self.normalize and abs(math.fsum(weights)) <= 1e-9 * math.fsum(map(abs, weights)):
            raise ConfigError(
                "weights that add up to 0 cannot be normalised",
                config="method.weights",
                fix="set normalize=false, or other weights",
            )

    @property
    def in_one_pass(self) -> str:
        return "all"

    def divisor(self, weights: Sequence[float]) -> float:
        return math.fsum(weights) if self.normalize else 1.0

    def apply(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        total = add_all(deltas)
        return total.div_(self.divisor(weights)) if self.normalize else total


class Elect(Combiner):
    """Elect a sign for each entry, then merge the task vectors that agree with it (TIES)."""

    name: Literal["elect"] = "elect"
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )

    @property
    def in_one_pass(self) -> str:
        return self.merge_func

    def apply(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        return merge_elected(deltas, self.merge_func, weights)


class Largest(Combiner):
    """Of each entry, the update of largest magnitude (MagMax)."""

    name: Literal["largest"] = "largest"

    def apply(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        return largest_magnitude(deltas)


class ActiveMean(Combiner):
    """Of each entry, the mean over the task vectors that are not 0 there (Localize-and-Stitch)."""

    name: Literal["active_mean"] = "active_mean"

    def apply(self, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        return mean_of_active(deltas, weights)


AnyCombiner = Annotated[Sum | Elect | Largest | ActiveMean, Field(discriminator="name")]
