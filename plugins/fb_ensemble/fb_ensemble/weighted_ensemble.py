"""The weighted mean of outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field, model_validator

from fb_ensemble.ensemble import ensemble
from fb_ensemble.plugin import WEIGHTED_ENSEMBLE
from fb_ensemble.space import LAWS_OF_PROBABILITIES, Space
from fusionbench_core import Capabilities, ConfigError, Fused, FusionJob, Law, ModelMethod, implements


@implements(WEIGHTED_ENSEMBLE)
class WeightedEnsemble(ModelMethod):
    r"""A weighted mean of all models' outputs.

    With outputs $z_t = f_t(x)$, in logit space or in probability space:

    $$y = \sum_t w_t z_t \qquad\text{or}\qquad y = \log \sum_t w_t \,\mathrm{softmax}(z_t), \qquad
      w_t \leftarrow \frac{w_t}{\sum_s w_s} \text{ if normalize}$$

    Notes:
        A list of weights is read in the order of the config and makes the order of the models
        meaningful; a mapping goes by their names. Without `weights` all models weigh 1 / T, whatever
        `normalize` says. A model of weight 0 does not count. Weights may be negative in logit space only.

    Reference:
        Perrone and Cooper, When networks disagree: ensemble methods for hybrid neural networks, 1993.
    """

    weights: tuple[float, ...] | Mapping[str, float] | None = Field(
        default=None,
        description="one weight a model: a list in config order, or model name -> weight; null: uniform",
    )
    normalize: bool = Field(default=True, description="divide the weights by their sum")
    space: Space = "logits"

    @model_validator(mode="after")
    def _can_be_used(self) -> WeightedEnsemble:
        values = self._values
        size = math.fsum(map(abs, values))
        if self.weights is not None and not size:
            raise ValueError("at least one weight must differ from 0")
        if self.weights is not None and self.normalize and abs(math.fsum(values)) <= 1e-9 * size:
            raise ValueError("weights that add up to 0 cannot be normalized")
        if self.space == "probabilities" and any(value < 0 for value in values):
            raise ValueError("weights of probabilities must not be negative")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that these parameters break."""
        laws = self.record.capabilities.laws
        ordered = self.weights is not None and not isinstance(self.weights, Mapping)
        if self.space == "probabilities":
            laws = LAWS_OF_PROBABILITIES
        if self.weights is not None and not self.normalize and math.fsum(self._values) != 1:
            laws = laws & {Law.PERMUTATION}
        if ordered:
            laws = laws - {Law.PERMUTATION}
        return replace(self.record.capabilities, ordered=ordered, laws=laws)

    def check(self, models: Sequence[str]) -> None:
        """One weight a model.

        Raises:
            ConfigError: if a model has no weight, or a weight no model.
        """
        self.weights_of(models)

    def weights_of(self, models: Sequence[str]) -> list[float]:
        """One weight a model, as used.

        Raises:
            ConfigError: if a model has no weight, or a weight no model.
        """
        if self.weights is None:
            return [1 / len(models)] * len(models)
        if isinstance(self.weights, Mapping):
            wrong = [f"no weight for {name!r}" for name in models if name not in self.weights]
            wrong += [f"there is no model {name!r}" for name in self.weights if name not in models]
        else:
            wrong = [f"the models are {', '.join(models)}"] * (len(self.weights) != len(models))
        if wrong:
            raise ConfigError(
                f"{len(self.weights)} weights do not fit {len(models)} models",
                config="method.weights",
                why="; ".join(wrong),
                fix=f"give one weight for each of {', '.join(models)}, in that order or by name",
            )
        named = self.weights if isinstance(self.weights, Mapping) else dict(zip(models, self.weights))
        total = math.fsum(self._values) if self.normalize else 1.0
        return [named[name] / total for name in models]

    def fuse(self, job: FusionJob) -> Fused:
        weights = self.weights_of(job.pool.names)
        return ensemble(job.pool, combine="mean", weights=weights, space=self.space)

    @property
    def _values(self) -> tuple[float, ...]:
        given = self.weights or ()
        return tuple(given.values() if isinstance(given, Mapping) else given)
