"""The uniform soup."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator
from torch import Tensor

from fb_ensemble.records import UNIFORM_SOUP
from fusionbench_core import ConfigError, TensorGroup, TensorMethod, implements


@implements(UNIFORM_SOUP)
class UniformSoup(TensorMethod):
    r"""The mean of all models' weights, or of those that are named.

    $$\theta = \frac{1}{|S|} \sum_{t \in S} \theta_t$$

    Notes:
        A soup is made of models that were fine-tuned alike, from one base, on one task. It is one model, at
        the cost of one. The base is not among the averaged models. `greedy_soup` chooses the ingredients.

    Reference:
        Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482.
    """

    ingredients: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the models that are averaged; null: all of them"
    )

    @field_validator("ingredients")
    @classmethod
    def _once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("every model can be named once")
        return value

    def check(self, models: Sequence[str]) -> None:
        """Every ingredient is a model.

        Raises:
            ConfigError: naming those that are not.
        """
        unknown = [name for name in self.ingredients or () if name not in models]
        if unknown:
            raise ConfigError(
                f"there is no model {', '.join(map(repr, unknown))} to average",
                config="method.ingredients",
                fix=f"the models are {', '.join(models)}",
            )

    def merge(self, group: TensorGroup) -> Tensor:
        chosen = [
            model
            for name, model in zip(group.names, group.models)
            if name in (self.ingredients or group.names)
        ]
        total, *others = chosen
        for model in others:
            total += model
        return total.div_(len(chosen))
