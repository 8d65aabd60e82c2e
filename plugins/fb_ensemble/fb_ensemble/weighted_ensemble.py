"""The weighted mean of outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from fb_ensemble.builder import make_predictor
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.fitting import fit_weights
from fb_ensemble.members import members_of
from fb_ensemble.records import WEIGHTED_ENSEMBLE
from fb_ensemble.space import LAWS_OF_PROBABILITIES, Space
from fb_ensemble.validation import Samples, predictions, used
from fusionbench_core import (
    Capabilities,
    ConfigError,
    Fused,
    FusionJob,
    Law,
    Members,
    implements,
)


@implements(WEIGHTED_ENSEMBLE)
class WeightedEnsemble(MemberMethod):
    r"""A weighted mean of all models' outputs, the weights given or fitted on validation data.

    With outputs $z_t = f_t(x)$ and $p_t = \mathrm{softmax}(z_t)$, by `space`:

    $$y = \sum_t w_t z_t, \qquad y = \log \sum_t w_t p_t, \qquad
      y = \log \frac{\prod_t p_t^{w_t}}{\sum_c \prod_t p_{tc}^{w_t}}, \qquad
      y_c = \log \sum_{t:\,c = \arg\max z_t} w_t$$

    with $w_t \leftarrow w_t / \sum_s w_s$ if `normalize`. Fitted weights are those of least cross-entropy,
    the mean over the K tasks of the task pool:

    $$w = \arg\min_{w \ge 0,\ \sum_t w_t = 1}\ \frac1K \sum_{k=1}^K \frac{1}{n_k} \sum_i
      -\log \mathrm{softmax}(y(x_i))_{c_i}$$

    Notes:
        A list of weights is read in the order of the config and makes the order of the models
        meaningful; a mapping goes by their names. Without `weights` all models weigh 1 / T, whatever
        `normalize` says. A model of weight 0 does not count. Negative weights have no meaning for
        probabilities and votes. Votes are as in `simple_ensemble`, which says how ties are broken.
        `weights: fitted` solves a convex problem on the validation splits, with labels; the same weights
        serve all tasks. For `probabilities` it is the stacking of predictive distributions of Yao et al.
        (Bayesian Analysis 2018, arXiv:1704.02030), on held-out data instead of leave-one-out.

    Reference:
        Perrone and Cooper, When networks disagree: ensemble methods for hybrid neural networks, 1993.
    """

    weights: tuple[float, ...] | Mapping[str, float] | Literal["fitted"] | None = Field(
        default=None,
        description="one weight a model: a list in config order, or model name -> weight; `fitted`: those of "
        "least cross-entropy on validation data; null: uniform",
    )
    normalize: bool = Field(default=True, description="divide the weights by their sum")
    space: Space = "logits"
    validation_samples: Samples = None

    @model_validator(mode="after")
    def _can_be_used(self) -> WeightedEnsemble:
        if self.weights == "fitted":
            return self._can_be_fitted()
        values = self._values
        size = math.fsum(map(abs, values))
        if self.weights is not None and not size:
            raise ValueError("at least one weight must differ from 0")
        if self.weights is not None and self.normalize and abs(math.fsum(values)) <= 1e-9 * size:
            raise ValueError("weights that add up to 0 cannot be normalized")
        if self.space in ("probabilities", "votes") and any(value < 0 for value in values):
            raise ValueError(f"weights of {self.space} must not be negative")
        if self.validation_samples is not None:
            raise ValueError("validation_samples is for weights=fitted: no other weights look at data")
        return self

    def _can_be_fitted(self) -> WeightedEnsemble:
        if self.space == "votes":
            raise ValueError("weights of votes cannot be fitted: votes have no gradient")
        if not self.normalize:
            raise ValueError("fitted weights add up to 1: leave out normalize")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that these parameters break; fitted weights need data."""
        laws = self.record.capabilities.laws
        ordered = isinstance(self.weights, tuple)
        fitted = self.weights == "fitted"
        if self.space != "logits":
            laws = LAWS_OF_PROBABILITIES
        if self._values and not self.normalize and math.fsum(self._values) != 1:
            laws = laws & {Law.PERMUTATION}
        if ordered:
            laws = laws - {Law.PERMUTATION}
        tasks = ("batches", "labels", "logits") if fitted else ()
        return replace(self.record.capabilities, ordered=ordered, laws=laws, tasks=tasks, trains=fitted)

    def check(self, models: Sequence[str]) -> None:
        """One weight a model.

        Raises:
            ConfigError: if a model has no weight, or a weight no model.
        """
        if self.weights != "fitted":
            self.weights_of(models)

    def weights_of(self, models: Sequence[str]) -> list[float]:
        """One weight a model, as given.

        Raises:
            ConfigError: if a model has no weight, or a weight no model.
        """
        given = self.weights
        if given is None or isinstance(given, str):
            return [1 / len(models)] * len(models)
        if isinstance(given, Mapping):
            wrong = [f"no weight for {name!r}" for name in models if name not in given]
            wrong += [f"there is no model {name!r}" for name in given if name not in models]
        else:
            wrong = [f"the models are {', '.join(models)}"] * (len(given) != len(models))
        if wrong:
            raise ConfigError(
                f"{len(given)} weights do not fit {len(models)} models",
                config="method.weights",
                why="; ".join(wrong),
                fix=f"give one weight for each of {', '.join(models)}, in that order or by name",
            )
        named = given if isinstance(given, Mapping) else dict(zip(models, given))
        total = math.fsum(self._values) if self.normalize else 1.0
        return [named[name] / total for name in models]

    def fuse(self, job: FusionJob) -> Fused:
        names = order_of(self, job.pool)
        members = members_of(job.pool, names, self.in_memory)
        weights, details = self.weights_of(names), {}
        if self.weights == "fitted":
            weights, details = self._fitted(job, members)
        return referring(
            members,
            make_predictor,
            "predictor",
            details=details,
            in_memory=self.in_memory,
            combine="mean",
            weights=weights,
            space=self.space,
        )

    def _fitted(self, job: FusionJob, members: Members) -> tuple[list[float], dict[str, Any]]:
        found = predictions(job, members, self.validation_samples)
        weights = fit_weights(list(found.values()), self.space).tolist()
        return weights, {
            "weights": dict(zip(members.names, weights)),
            "validation_samples": used(found),
        }

    @property
    def _values(self) -> tuple[float, ...]:
        if self.weights is None or isinstance(self.weights, str):
            return ()
        return tuple(self.weights.values() if isinstance(self.weights, Mapping) else self.weights)
