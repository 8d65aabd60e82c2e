"""Parameters by layer, by name and by model."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, ValidationError, model_validator
from torch import Tensor

from fb_merging.varied.by_instance import SurveyByInstance
from fb_merging.varied.records import VARIED
from fb_merging.varied.settings import Among, Setting, Settings, Undecided, leaves
from fusionbench_core import (
    AnyTensorMethod,
    Capabilities,
    ConfigError,
    Law,
    Survey,
    TensorGroup,
    TensorMethod,
    did_you_mean,
    implements,
)

_WIDTHS = ("element", "row", "tensor", "layer", "model")
_NOTHING = Setting(())


@implements(VARIED)
class Varied(TensorMethod):
    r"""Another method, with parameters that differ from tensor to tensor.

    With $f_p$ the method with parameters $p$, in tensor $n$ of layer $\ell$ of $L$:

    $$\theta^{(n)} = f_{p(n)}\big(\theta_1^{(n)}, \dots, \theta_T^{(n)}\big), \qquad
      p(n) = (1 - u)\,a_{k} + u\,a_{k+1}, \quad k + u = \tfrac{\ell}{L-1}\,(K - 1)$$

    for a gradient $a_0, \dots, a_{K-1}$, and a constant otherwise.

    Notes:
        `parameters` says for each parameter that varies one of: a value; a rule `{value: …}` or
        `{gradient: […]}`, which may be limited to `tensors` (shell patterns of names) and to `layers`
        (`[start, stop]`, which a gradient then spans, `before` or `after`); a list of rules, of which the
        first that applies counts; or, where the method takes one value a model, model name -> any of these.
        Where no rule applies, the parameter is as `method` gives it.
        Outside the layers a gradient has its first value, as in mergekit. A method that surveys whole models
        first, as `ties_merging` does, sees of each set of parameters the tensors that it merges.
        `among` says, in the same rules, which models are merged where.

    Reference:
        Goddard et al., Arcee's MergeKit: A Toolkit for Merging Large Language Models, EMNLP 2024,
        arXiv:2403.13257, whose gradients and filters these are.
    """

    method: AnyTensorMethod = Field(
        default="simple_average",  # type: ignore[assignment]
        description="the method: a name, or {name, the parameters that do not vary}",
    )
    parameters: Annotated[dict[str, Any], AfterValidator(Settings)] = Field(
        default={}, description="parameter of the method -> a value, rules, or model name -> either"
    )
    among: Annotated[list[dict[str, Any]], AfterValidator(Among)] = Field(
        default=[],
        description="rules whose values are lists of models: those merged there; elsewhere all are",
    )

    @model_validator(mode="after")
    def _fits_the_method(self) -> Varied:
        known = list(type(self.method).model_fields)
        for name in self.parameters:
            if name not in known:
                hint = did_you_mean(name, known) or f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"{self.method.record.name} has no parameter {name!r}; {hint}")
        try:
            self._corners(())
        except ValidationError as error:
            raise ValueError(_reasons(error)) from error
        return self

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        weights = {model: {"gradient": [0.5, 2.0 + index]} for index, model in enumerate(sorted(models))}
        method = {"name": "weighted_average", "weights": dict.fromkeys(models, 1.0)}
        return {"method": method, "parameters": {"weights": weights}}

    @property
    def capabilities(self) -> Capabilities:
        """What the method needs with any of its parameters, and what it promises with all of them."""
        each = [method.capabilities for method in self._corners(())]
        return dataclasses.replace(
            each[0],
            base=_strictest({one.base for one in each}),
            min_models=1 if self.among else max(one.min_models for one in each),
            max_models=None if self.among else each[0].max_models,
            locality=max((one.locality for one in each), key=_WIDTHS.index),
            scratch=(max(one.scratch[0] for one in each), max(one.scratch[1] for one in each)),
            surveys=max(one.surveys for one in each),
            random=any(one.random for one in each),
            ordered=any(one.ordered for one in each),
            laws=frozenset.intersection(*(one.laws for one in each))
            - ({Law.SINGLE} if self.among else set()),
        )

    def check(self, models: Sequence[str]) -> None:
        for name, setting in self._settings.items():
            unknown = [each for each in setting if each not in models] if isinstance(setting, dict) else []
            if unknown:
                raise ConfigError(
                    f"`{name}` is given for {unknown[0]!r}, which is no model of the pool",
                    config=f"method.parameters.{name}",
                    fix=did_you_mean(unknown[0], models) or f"the models are {', '.join(models)}",
                )
        for chosen in leaves(self._among):
            if missing := [each for each in chosen if each not in models]:
                raise ConfigError(
                    f"`among` names {missing[0]!r}, which is no model of the pool",
                    config="method.among",
                    fix=did_you_mean(missing[0], models) or f"the models are {', '.join(models)}",
                )
        for chosen in dict.fromkeys(leaves(self._among)) or [tuple(models)]:
            self._check_count(chosen)
            for method in self._corners(chosen):
                method.check(chosen)

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return self.method.statistics()

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        return max(method.scratch(name, shape, models) for method in self._corners(()))

    def survey(self) -> Survey | None:
        surveys = any(method.survey() is not None for method in self._corners(()))
        return SurveyByInstance(self._part) if surveys else None

    def merge(self, group: TensorGroup) -> Tensor:
        method, part = self._part(group)
        if group.survey is not None:
            part = part.only(part.names)
            part.survey = group.survey.get(method)
        return method.merge(part)

    def _part(self, group: TensorGroup) -> tuple[TensorMethod, TensorGroup]:
        """The method for the tensor of a group, and the group with the models that it merges there."""
        try:
            chosen = self._among.at(group)
            group = group.only([name for name in group.names if name in chosen])
        except Undecided:
            pass
        values: dict[str, Any] = {}
        for name, setting in self._settings.items():
            try:
                each = isinstance(setting, dict)
                values[name] = self._each(name, setting, group) if each else setting.at(group)
            except Undecided:
                continue
        try:
            return _with(self.method, values), group
        except ValidationError as error:
            raise ConfigError(
                "the parameters do not go together here",
                config="method.parameters",
                tensor=group.name,
                why=_reasons(error),
            ) from error

    def _each(self, name: str, setting: Mapping[str, Setting], group: TensorGroup) -> PerModel:
        """One value for each model of the group."""
        own = getattr(self.method, name)
        found = []
        for model in group.names:
            try:
                value = setting.get(model, _NOTHING).at(group)
            except Undecided:
                value = own[model] if isinstance(own, Mapping) else own
            found.append((model, value))
        return PerModel(tuple(found))

    @property
    def _settings(self) -> dict[str, Setting | dict[str, Setting]]:
        return cast(Settings, self.parameters).read

    @property
    def _among(self) -> Setting:
        return cast(Among, self.among).read

    def _corners(self, models: Sequence[str]) -> list[TensorMethod]:
        """The method with each value that is written down for a parameter, and the first of all others.

        Values that are allowed but do not go together are left out: they may never meet.
        """
        settings = {name: setting for name, setting in self._settings.items() if list(leaves(setting))}
        written = {name: list(dict.fromkeys(leaves(setting))) for name, setting in settings.items()}
        first = {name: _spread(settings[name], values[0], models) for name, values in written.items()}
        choices = [first]
        for name, values in written.items():
            choices += [{**first, name: _spread(settings[name], value, models)} for value in values[1:]]
        found = []
        for choice in choices:
            try:
                found.append(_with(self.method, choice))
            except ValidationError as error:
                if any(detail["loc"] for detail in error.errors()):
                    raise
        return found or [self.method]

    def _check_count(self, chosen: Sequence[str]) -> None:
        needs = self.method.capabilities
        if len(chosen) < needs.min_models or len(chosen) > (needs.max_models or len(chosen)):
            wanted = f"{needs.min_models} to {needs.max_models or 'any number of'}"
            raise ConfigError(
                f"{self.method.record.full_name} cannot merge {len(chosen)} models, which `among` asks for",
                config="method.among",
                why=f"it takes {wanted} models; the rule names {', '.join(chosen)}",
            )


@dataclasses.dataclass(frozen=True)
class PerModel:
    """Model -> value, as pairs, so that it can be hashed."""

    pairs: tuple[tuple[str, Any], ...]


def _spread(setting: Setting | Mapping[str, Setting], value: Any, models: Sequence[str]) -> Any:
    """The value, for each model where the setting is by model."""
    if isinstance(setting, Setting):
        return value
    return PerModel(tuple((model, value) for model in models or setting))


def _with(method: TensorMethod, values: Mapping[str, Any]) -> TensorMethod:
    """The method with other values of some parameters."""
    return _made(cast(Hashable, method), tuple(values.items()))


@lru_cache(maxsize=4096)
def _made(method: Any, values: tuple[tuple[str, Any], ...]) -> TensorMethod:
    changed = {name: dict(v.pairs) if isinstance(v, PerModel) else v for name, v in values}
    own = {name: getattr(method, name) for name in type(method).model_fields}
    return type(method).model_validate({**own, **changed})


def _strictest(bases: set[str]) -> Any:
    return next(word for word in ("required", "forbidden", "optional") if word in bases)


def _reasons(error: ValidationError) -> str:
    """What is wrong with the values, each once: not that a number is no list, where it is out of range."""
    details = error.errors()
    real = [each for each in details if not each["type"].endswith("_type")] or details
    return "; ".join(
        dict.fromkeys(
            f"{each['loc'][0] if each['loc'] else 'together'} {each['input']!r}: {each['msg']}"
            for each in real
        )
    )
