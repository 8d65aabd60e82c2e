"""Weighted averaging."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.averages.records import WEIGHTED_AVERAGE
from fb_merging.operations.combine import weighted_sum
from fusionbench_core import Capabilities, ConfigError, Law, TensorGroup, TensorMethod, implements


@implements(WEIGHTED_AVERAGE)
class WeightedAverage(TensorMethod):
    r"""A weighted sum of the models, entry by entry.

    $$\theta = \sum_{t=1}^{T} w_t \theta_t, \qquad
      w_t \leftarrow \frac{w_t}{\sum_s w_s} \text{ if normalize}$$

    Notes:
        Weights may be negative (extrapolation) or 0 (the model does not count). A list is read in the order
        of the config and makes the order of the models meaningful; a mapping goes by their names.
        Without `weights` all models weigh 1 / T, whatever `normalize` says.
        FusionBench defaults to `[0.5, 0.5]`; here uniform weights fit any number of models.

    Reference:
        Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482.
    """

    weights: tuple[float, ...] | Mapping[str, float] | None = Field(
        default=None,
        description="one weight a model: a list in config order, or model name -> weight; null: uniform",
    )
    normalize: bool = Field(default=True, description="divide the weights by their sum")

    @model_validator(mode="after")
    def _can_be_normalised(self) -> WeightedAverage:
        values = _values(self.weights)
        if values and self.normalize and abs(math.fsum(values)) <= 1e-9 * math.fsum(map(abs, values)):
            raise ValueError("weights that add up to 0 cannot be normalised")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that these weights break."""
        laws = set(self.record.capabilities.laws)
        ordered = self.weights is not None and not isinstance(self.weights, Mapping)
        if ordered:
            laws -= {Law.PERMUTATION}
        if self.weights is not None and not self.normalize and math.fsum(_values(self.weights)) != 1:
            laws &= {Law.PERMUTATION, Law.SCALE}
        return dataclasses.replace(self.record.capabilities, ordered=ordered, laws=frozenset(laws))

    def check(self, models: Sequence[str]) -> None:
        self._weights_of(models)

    def merge(self, group: TensorGroup) -> Tensor:
        return weighted_sum(group.models, self._weights_of(group.names))

    def __hash__(self) -> int:
        return hash((type(self), self.normalize, *sorted(_values(self.weights))))

    def _weights_of(self, models: Sequence[str]) -> list[float]:
        """One weight a model, as used.

        Raises:
            ConfigError: if there is not exactly one weight for every model.
        """
        if self.weights is None:
            return [1 / len(models)] * len(models)
        if isinstance(self.weights, Mapping):
            missing = [name for name in models if name not in self.weights]
            unknown = [name for name in self.weights if name not in models]
            if missing or unknown:
                raise ConfigError(
                    "the weights do not fit the models",
                    config="method.weights",
                    why="; ".join(
                        [f"no weight for {name!r}" for name in missing]
                        + [f"there is no model {name!r}" for name in unknown]
                    ),
                    fix=f"give one weight for each of {', '.join(models)}",
                )
            values = [self.weights[name] for name in models]
        else:
            values = list(self.weights)
            if len(values) != len(models):
                raise ConfigError(
                    f"{len(values)} weights for {len(models)} models",
                    config="method.weights",
                    why=f"the models are {', '.join(models)}",
                    fix="give one weight a model, in config order, or a mapping of names to weights",
                )
        total = math.fsum(values) if self.normalize else 1.0
        return [value / total for value in values]


def _values(weights: Sequence[float] | Mapping[str, float] | None) -> list[float]:
    return list(weights.values() if isinstance(weights, Mapping) else weights or ())
