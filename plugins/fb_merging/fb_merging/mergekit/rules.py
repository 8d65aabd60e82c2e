"""mergekit's settings of a parameter, as rules of the method `varied`.

A setting is a value, a list of values along the depth, or a list of those with filters by name. The settings
of a source go before those of its slice, of its module and of the whole config.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fb_merging.mergekit.methods import REQUIRED, Parameter
from fusionbench_core import ConfigError

Rule = dict[str, Any]

_CONDITION = ("value", "filter")


@dataclass(frozen=True)
class Part:
    """Where in the result a block's settings apply.

    Attributes:
        layers: Layers of the result; None for a block that is the whole depth.
        tensors: Shell patterns of names; empty for all.
        first: Whether what lies before the layers belongs to it.
        last: Whether what lies after them does.
    """

    layers: tuple[int, int] | None = None
    tensors: tuple[str, ...] = ()
    first: bool = True
    last: bool = True

    @property
    def is_all(self) -> bool:
        """Whether it is the whole model."""
        return self.layers is None and not self.tensors

    def limit(self, rule: Rule) -> list[Rule]:
        """The rule, for this part alone."""
        tensors = _both(self.tensors, rule.get("tensors"))
        rule = {
            **({"tensors": tensors} if tensors else {}),
            **{k: v for k, v in rule.items() if k != "tensors"},
        }
        if self.layers is None:
            return [rule]
        limited = [{"layers": list(self.layers), **rule}]
        # Outside the layers mergekit takes the first value of a gradient.
        outside = {k: v for k, v in rule.items() if k != "gradient"}
        outside["value"] = rule["gradient"][0] if "gradient" in rule else rule["value"]
        limited += [{"layers": "before", **outside}] if self.first else []
        limited += [{"layers": "after", **outside}] if self.last else []
        return limited


def rules_of(parameter: Parameter, scopes: Iterable[Mapping[str, Any]], where: str) -> list[Rule]:
    """The rules for one parameter, of which the first that applies counts.

    Args:
        parameter: The parameter.
        scopes: Settings by name, the most specific first.
        where: What they are for, for messages.

    Raises:
        ConfigError: if a value is wrong, or a required one is missing.
    """
    rules: list[Rule] = []
    for scope in scopes:
        if parameter.theirs not in scope or scope[parameter.theirs] == []:
            continue
        for rule in _conditions(parameter, scope[parameter.theirs], where):
            rules.append(rule)
            if "tensors" not in rule:
                return rules
    if parameter.default is REQUIRED:
        missing = "has no value for tensors that no filter matches" if rules else "is missing"
        raise ConfigError(
            f"the parameter `{parameter.theirs}` {missing}",
            config=where,
            why="this merge_method needs it for every tensor",
            fix=f"add it here, or for the whole config: parameters: {{{parameter.theirs}: …}}",
        )
    return [*rules, {"value": parameter.read(parameter.default)}]


def constant(rules: Sequence[Rule]) -> bool:
    """Whether the rules come to one value for all tensors."""
    first = rules[0]
    return "value" in first and all(
        each.get("value") == first["value"] and "gradient" not in each for each in rules
    )


def _conditions(parameter: Parameter, setting: Any, where: str) -> list[Rule]:
    if isinstance(setting, Mapping):
        setting = [setting]
    if not (isinstance(setting, list) and any(isinstance(each, Mapping) for each in setting)):
        return [_value(parameter, setting, where)]
    rules = []
    for each in setting:
        unknown = [key for key in each if key not in _CONDITION] if isinstance(each, Mapping) else [each]
        if unknown or "value" not in each:
            raise ConfigError(
                f"{each!r} is no value with a filter",
                config=f"{where}.{parameter.theirs}",
                why=f"mergekit would ignore {unknown[0]!r}, and take the value for all tensors"
                if unknown
                else None,
                fix="write {value: …, filter: part of a name}, and {value: …} for the rest",
            )
        rule = _value(parameter, each["value"], where)
        name = each.get("filter")
        if name not in (None, "*"):
            rule = {"tensors": f"*{glob.escape(str(name))}*", **rule}
        rules.append(rule)
    return rules


def _value(parameter: Parameter, said: Any, where: str) -> Rule:
    try:
        if isinstance(said, list):
            return {"gradient": [_read(parameter, each) for each in said]}
        return {"value": _read(parameter, said)}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{said!r} is no value of `{parameter.theirs}`",
            config=f"{where}.{parameter.theirs}",
            why=str(error),
        ) from error


def _read(parameter: Parameter, said: Any) -> Any:
    if parameter.read in (float, int) and isinstance(said, bool):
        raise ValueError("it must be a number")
    if parameter.only is not None and said != parameter.only:
        raise ValueError(f"only {parameter.only!r} can be had here")
    return parameter.read(said)


def _both(one: tuple[str, ...], other: str | None) -> list[str] | str | None:
    """Patterns of names that match one of the first and the other."""
    if not one:
        return other
    if other is None:
        return list(one)
    # `*a*` and `x*` are met by names that begin with x and hold a; the patterns of modules end in `*`.
    return [f"{pattern.removesuffix('*')}{other}" for pattern in one]
