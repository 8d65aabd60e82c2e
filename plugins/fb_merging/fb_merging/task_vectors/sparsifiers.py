"""Ways to make task vectors sparse, as they are named in configs."""

from __future__ import annotations

import ctypes
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from fb_merging.operations import native
from fb_merging.operations.magnitude import MagnitudeThreshold, thresholds_of
from fb_merging.operations.per_model import Fractions, fraction_kept, is_list, numbers_of, values_of
from fb_merging.operations.sparsify import (
    Rescale,
    count_kept,
    drop_at_random,
    drop_by_rank,
    keep_band,
    keep_largest,
    linear_probabilities,
    places_of_band,
    restore_l1,
)
from fusionbench_core import StoredPieces, Survey, TensorGroup

Locality = Literal["element", "row", "tensor"]


@dataclass(frozen=True)
class Bounds:
    """The smallest magnitude kept of each model's task vector, and the largest; all by default."""

    low: list[float] | None = None
    high: list[float] | None = None


class Sparsifier(BaseModel):
    """One step that makes the task vectors of a group sparse."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    random: ClassVar[bool] = False

    density: Fractions = fraction_kept(0.5)
    rescale: str

    @property
    @abstractmethod
    def locality(self) -> Locality:
        """How much of a tensor must be seen at once."""

    @property
    def ordered(self) -> bool:
        return is_list(self.density)

    def check(self, models: Sequence[str]) -> None:
        """Raise a ConfigError if a parameter does not fit the models."""
        values_of(self.density, models, "density")

    def survey(self) -> Survey | None:
        """What is needed of whole models."""
        return None

    @property
    def in_one_pass(self) -> bool:
        """Whether functions in C can do it as they read the models: without a norm of what comes out."""
        return self.rescale != "l1"

    def drops(self, group: TensorGroup, library: ctypes.CDLL, pieces: StoredPieces) -> native.Drops | None:
        """What is dropped of each model at random, by a random step; None where that cannot be."""
        raise NotImplementedError

    def bounds(
        self, group: TensorGroup, library: ctypes.CDLL, source: native.Source, found: Any
    ) -> Bounds | None:
        """Which magnitudes are kept of each model, all by default; None with NaN and Inf."""
        return Bounds()

    @abstractmethod
    def apply(self, group: TensorGroup, found: Any) -> list[Tensor]:
        """Sparse copies of `group.deltas`; `found` is the result of the survey."""


class KeepLargest(Sparsifier):
    """Keep the largest magnitudes (TIES' trimming)."""

    name: Literal["magnitude"] = "magnitude"
    density: Fractions = fraction_kept(0.2)
    trim: Literal["model", "tensor"] = Field(
        default="model", description="one threshold over all merged entries of a model, or one a tensor"
    )
    rescale: Literal["l1", "none"] = Field(default="none", description="l1: keep the L1 norm of each tensor")

    @property
    def locality(self) -> Locality:
        whole = self.rescale == "l1" or (self.trim == "tensor" and not self._keeps_all)
        return "tensor" if whole else "element"

    @property
    def _keeps_all(self) -> bool:
        return set(numbers_of(self.density)) == {1}

    def survey(self) -> Survey | None:
        return MagnitudeThreshold(self.density) if self.trim == "model" and not self._keeps_all else None

    def bounds(
        self, group: TensorGroup, library: ctypes.CDLL, source: native.Source, found: list[float] | None
    ) -> Bounds | None:
        if self._keeps_all:
            return Bounds()
        if found is not None:
            return Bounds(found)
        n = math.prod(group.piece_shape)
        densities = values_of(self.density, group.names, "density")
        low = _magnitudes(library, source, [(n - count_kept(density, n),) for density in densities])
        return None if low is None else Bounds([smallest for (smallest,) in low])

    def apply(self, group: TensorGroup, found: list[float] | None) -> list[Tensor]:
        if self._keeps_all:
            return group.deltas
        bounds = thresholds_of(group, self.density) if found is None else found
        kept = [keep_largest(delta, bound) for delta, bound in zip(group.deltas, bounds)]
        return [restore_l1(sparse, delta, self.rescale) for sparse, delta in zip(kept, group.deltas)]


class DropAtRandom(Sparsifier):
    """Keep entries at random (DARE)."""

    random: ClassVar[bool] = True

    name: Literal["random"] = "random"
    rescale: Rescale = Field(
        default="probability", description="divide by the density, restore the L1 norm, or neither"
    )

    @property
    def locality(self) -> Locality:
        return "tensor" if self.rescale == "l1" else "element"

    def drops(self, group: TensorGroup, library: ctypes.CDLL, pieces: StoredPieces) -> native.Drops:
        densities = values_of(self.density, group.names, "density")
        uniform = [group.uniform(model) for model in group.names]
        return native.Drops(uniform, densities, rescale=self.rescale == "probability")

    def apply(self, group: TensorGroup, found: Any) -> list[Tensor]:
        densities = values_of(self.density, group.names, "density")
        return [
            drop_at_random(delta, group.uniform(model), density, self.rescale)
            for model, delta, density in zip(group.names, group.deltas, densities)
        ]


class MagPrune(Sparsifier):
    """Keep entries at random, large ones more often (DELLA)."""

    random: ClassVar[bool] = True

    name: Literal["magprune"] = "magprune"
    epsilon: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="the smallest entry is kept with probability density - ε, the largest with density + ε",
    )
    window: Literal["row", "tensor"] = Field(
        default="row", description="rank the entries of each row (output unit), or of the whole tensor"
    )
    rescale: Rescale = Field(
        default="probability", description="divide by the probability, restore the L1 norm, or neither"
    )

    @model_validator(mode="after")
    def _probabilities_are_between_0_and_1(self) -> MagPrune:
        for density in numbers_of(self.density):
            if density < 1 and not 0 < density - self.epsilon <= density + self.epsilon < 1:
                raise ValueError(
                    f"density ± epsilon must be between 0 and 1, and {density} ± {self.epsilon} is not"
                )
        return self

    @property
    def locality(self) -> Locality:
        return "tensor" if self.window == "tensor" or self.rescale == "l1" else "row"

    def drops(self, group: TensorGroup, library: ctypes.CDLL, pieces: StoredPieces) -> native.Drops | None:
        columns = math.prod(group.piece_shape[1:] if self._by_row(group.piece_shape) else group.piece_shape)
        probabilities: list[Tensor | float] = []
        for model, density in enumerate(values_of(self.density, group.names, "density")):
            ranked: Tensor | float | None = density
            if density < 1 and columns > 1:
                steps = linear_probabilities(columns, density, self.epsilon, torch.float32)
                ranked = native.by_rank(library, pieces, model, columns, steps)
            if ranked is None:
                return None
            probabilities.append(ranked)
        uniform = [group.uniform(model) for model in group.names]
        return native.Drops(uniform, probabilities, rescale=self.rescale == "probability")

    def apply(self, group: TensorGroup, found: Any) -> list[Tensor]:
        densities = values_of(self.density, group.names, "density")
        return [
            self._drop(delta, group.uniform(model), density)
            for model, delta, density in zip(group.names, group.deltas, densities)
        ]

    def _drop(self, delta: Tensor, uniform: Tensor, density: float) -> Tensor:
        if density == 1 or delta.numel() == 0:
            return delta + 0.0  # no 0 is negative
        ranked = delta.reshape(len(delta) if self._by_row(delta.shape) else 1, -1)
        kept = drop_by_rank(ranked, uniform.reshape(ranked.shape), density, self.epsilon, self.rescale)
        return kept.view(delta.shape)

    def _by_row(self, shape: Sequence[int]) -> bool:
        return self.window == "row" and len(shape) > 1


class KeepBand(Sparsifier):
    """Drop both the largest magnitudes and the smallest of each tensor (Model Breadcrumbs)."""

    name: Literal["breadcrumbs"] = "breadcrumbs"
    density: Fractions = fraction_kept(0.143)
    gamma: float = Field(default=0.007, ge=0, lt=1, description="fraction dropped from the top")
    rescale: Literal["l1", "none"] = Field(default="none", description="l1: keep the L1 norm of each tensor")

    @property
    def locality(self) -> Locality:
        return "tensor"

    def bounds(
        self, group: TensorGroup, library: ctypes.CDLL, source: native.Source, found: Any
    ) -> Bounds | None:
        n = math.prod(group.piece_shape)
        densities = values_of(self.density, group.names, "density")
        band = _magnitudes(library, source, [places_of_band(n, density, self.gamma) for density in densities])
        if band is None:
            return None
        band = [each if density < 1 else (0.0, math.inf) for each, density in zip(band, densities)]
        return Bounds([low for low, _ in band], [high for _, high in band])

    def apply(self, group: TensorGroup, found: Any) -> list[Tensor]:
        densities = values_of(self.density, group.names, "density")
        kept = [keep_band(delta, density, self.gamma) for delta, density in zip(group.deltas, densities)]
        return [restore_l1(sparse, delta, self.rescale) for sparse, delta in zip(kept, group.deltas)]


AnySparsifier = Annotated[KeepLargest | DropAtRandom | MagPrune | KeepBand, Field(discriminator="name")]


def localities(steps: Sequence[Sparsifier]) -> Locality:
    """The widest locality that any of the steps needs."""
    found = {step.locality for step in steps}
    return "tensor" if "tensor" in found else "row" if "row" in found else "element"


def _magnitudes(
    library: ctypes.CDLL, source: native.Source, places: Sequence[Sequence[int]]
) -> list[list[float]] | None:
    """For each model, the magnitudes at its places if all were sorted; None with NaN and Inf."""
    found = [native.magnitudes_at(library, source, model, each) for model, each in enumerate(places)]
    return None if None in found else [each for each in found if each is not None]
