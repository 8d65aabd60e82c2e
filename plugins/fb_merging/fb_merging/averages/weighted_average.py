"""Weighted averaging."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.averages.records import WEIGHTED_AVERAGE
from fb_merging.operations.per_model import NumberEach, is_list, numbers_of, values_of
from fusionbench_core import Capabilities, Law, TensorGroup, TensorMethod, implements


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

    weights: NumberEach | None = Field(
        default=None,
        description="one weight a model: a list in config order, or model name -> weight; null: uniform",
    )
    normalize: bool = Field(default=True, description="divide the weights by their sum")

    @model_validator(mode="after")
    def _can_be_normalised(self) -> WeightedAverage:
        values = [] if self.weights is None else numbers_of(self.weights)
        if values and self.normalize and abs(math.fsum(values)) <= 1e-9 * math.fsum(map(abs, values)):
            raise ValueError("weights that add up to 0 cannot be normalised")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that these weights break."""
        laws = set(self.record.capabilities.laws)
        ordered = is_list(self.weights)
        if ordered:
            laws -= {Law.PERMUTATION}
        if self.weights is not None and not self.normalize and math.fsum(numbers_of(self.weights)) != 1:
            laws &= {Law.PERMUTATION, Law.SCALE}
        return dataclasses.replace(self.record.capabilities, ordered=ordered, laws=frozenset(laws))

    def check(self, models: Sequence[str]) -> None:
        self._weights_of(models)

    def merge(self, group: TensorGroup) -> Tensor:
        return group.total(self._weights_of(group.names))

    def _weights_of(self, models: Sequence[str]) -> list[float]:
        """One weight a model, as used."""
        if self.weights is None:
            return [1 / len(models)] * len(models)
        values = values_of(self.weights, models, "weights")
        total = math.fsum(values) if self.normalize else 1.0
        return [value / total for value in values]
