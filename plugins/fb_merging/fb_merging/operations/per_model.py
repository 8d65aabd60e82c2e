"""Parameters that may differ from model to model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fusionbench_core import ConfigError


class Named(dict[str, float]):
    """Model name -> number, hashed by value."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


Fraction = Annotated[float, Field(gt=0, le=1)]

NumberEach = tuple[float, ...] | Annotated[Mapping[str, float], AfterValidator(Named)]
"""A list of one number a model in the order of the config, or model name -> number."""

Numbers = float | NumberEach
"""One number for all models, or one each."""

Fractions = Fraction | tuple[Fraction, ...] | Annotated[Mapping[str, Fraction], AfterValidator(Named)]
"""The same, each above 0 and at most 1."""

PerModel = float | tuple[float, ...] | Mapping[str, float]
"""What a field of type `Numbers` or `Fractions` holds."""


def fraction_kept(default: float) -> Any:
    """The field of a density."""
    return Field(
        default=default,
        description="fraction of the entries kept in each task vector: one for all models, a list in config "
        "order, or model name -> fraction",
    )


def weight_each() -> Any:
    """The field of the weights of task vectors."""
    return Field(
        default=1.0,
        description="multiplies each task vector: one for all models, a list in config order, or "
        "model name -> weight",
    )


def numbers_of(setting: PerModel) -> list[float]:
    """The numbers in a setting, whatever the models."""
    if isinstance(setting, Mapping):
        return list(setting.values())
    return list(setting) if isinstance(setting, tuple) else [setting]


def is_list(setting: Any) -> bool:
    """Whether the setting goes by the order of the models."""
    return isinstance(setting, tuple)


def values_of(setting: PerModel, models: Sequence[str], parameter: str) -> list[float]:
    """One number a model, in the order of `models`.

    Raises:
        ConfigError: if there is not exactly one number for every model.
    """
    if isinstance(setting, Mapping):
        missing = [f"nothing for {name!r}" for name in models if name not in setting]
        unknown = [f"there is no model {name!r}" for name in setting if name not in models]
        if missing or unknown:
            raise ConfigError(
                f"the {parameter} do not fit the models",
                config=f"method.{parameter}",
                why="; ".join(missing + unknown),
                fix=f"give one number for each of {', '.join(models)}",
            )
        return [setting[name] for name in models]
    if isinstance(setting, tuple):
        if len(setting) != len(models):
            raise ConfigError(
                f"{len(setting)} {parameter} for {len(models)} models",
                config=f"method.{parameter}",
                why=f"the models are {', '.join(models)}",
                fix="give one number a model, in config order, or a mapping of names to numbers",
            )
        return list(setting)
    return [setting] * len(models)


def below_all(weights: Sequence[float]) -> float:
    """Above 0, and below each sum of some of the weights, none of which is negative."""
    # A bound of the divisors is one vectorised pass; a mask takes twenty times as long.
    return min((weight for weight in weights if weight), default=1.0) / 2
