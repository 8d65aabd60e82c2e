"""A parameter's values: rules by names of tensors and by depth, for all models or one each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fusionbench_core import TensorGroup

KEYS = ("tensors", "layers", "value", "gradient")

_PLACES = ("before", "after")


class Undecided(Exception):
    """No rule speaks of a tensor."""


@dataclass(frozen=True)
class Rule:
    """One value, or one that changes with the depth, for some tensors.

    Attributes:
        tensors: Shell patterns of their names; empty for all.
        layers: Start and stop of their layers, or `before` or `after` the layers; None for all.
        value: The value, where there is no gradient.
        gradient: Values at evenly spaced depths of the layers, from the first to the last.
    """

    tensors: tuple[str, ...] = ()
    layers: tuple[int, int] | str | None = None
    value: Any = None
    gradient: tuple[Any, ...] = ()

    def applies(self, group: TensorGroup) -> bool:
        """Whether the tensor of a group is one of them."""
        if self.tensors and not any(fnmatchcase(group.name, pattern) for pattern in self.tensors):
            return False
        if isinstance(self.layers, tuple):
            return group.layer is not None and self.layers[0] <= group.layer < self.layers[1]
        return self.layers is None or self.layers == group.place

    def at(self, group: TensorGroup) -> Any:
        """The value for the tensor of a group."""
        if not self.gradient:
            return self.value
        start, stop = self.layers if isinstance(self.layers, tuple) else (0, group.layers or 0)
        return along(self.gradient, None if group.layer is None else group.layer - start, stop - start)

    @property
    def leaves(self) -> tuple[Any, ...]:
        """All values that are written down."""
        return self.gradient or (self.value,)


@dataclass(frozen=True)
class Setting:
    """Rules, of which the first that applies counts."""

    rules: tuple[Rule, ...]

    def at(self, group: TensorGroup) -> Any:
        """The value for the tensor of a group.

        Raises:
            Undecided: if no rule applies.
        """
        for rule in self.rules:
            if rule.applies(group):
                return rule.at(group)
        raise Undecided

    @property
    def leaves(self) -> tuple[Any, ...]:
        """All values that are written down."""
        return tuple(leaf for rule in self.rules for leaf in rule.leaves)


class Settings(dict[str, Any]):
    """Parameter -> what a config says of it, as it stands there, and read.

    Attributes:
        read: Parameter -> its setting, or model name -> setting.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(said)
        self.read: dict[str, Setting | dict[str, Setting]] = {}
        for name, each in said.items():
            try:
                self.read[name] = parse(each)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


class Among(list[dict[str, Any]]):
    """Rules of which models are merged where, as they stand in a config, and read."""

    def __init__(self, said: Sequence[dict[str, Any]]) -> None:
        super().__init__(said)
        self.read = Setting(tuple(_rule(each) for each in said))
        if any(not isinstance(leaf, tuple) or not leaf for leaf in self.read.leaves):
            raise ValueError("the value of each rule must be a list of models")


def along(anchors: Sequence[Any], layer: int | None, layers: int) -> Any:
    """The value at a layer: linear between evenly spaced numbers, the last one reached of other values.

    Outside the layers it is the first one; in a stack of one layer, the last one.

    >>> along([0.0, 1.0, 0.0], 1, 5), along(["mean", "sum"], 2, 5), along([0.2, 0.8], None, 5)
    (0.5, 'mean', 0.2)
    """
    if layer is None:
        return anchors[0]
    depth = layer / (layers - 1) if layers > 1 else 1.0
    place = depth * (len(anchors) - 1)
    low = int(place)
    if not _are_numbers(anchors):
        return anchors[low]
    high = min(low + 1, len(anchors) - 1)
    return (1 - (place - low)) * anchors[low] + (place - low) * anchors[high]


def parse(said: Any) -> Setting | dict[str, Setting]:
    """What a config says of one parameter: a value, a rule, a list of rules, or one of these a model.

    Raises:
        ValueError: saying what is wrong with a rule.
    """
    if isinstance(said, Mapping) and not _is_rule(said):
        return {str(model): _setting(each) for model, each in said.items()}
    return _setting(said)


def leaves(setting: Setting | Mapping[str, Setting]) -> Iterator[Any]:
    """All values that are written down."""
    for each in [setting] if isinstance(setting, Setting) else setting.values():
        yield from each.leaves


def _setting(said: Any) -> Setting:
    if isinstance(said, Mapping):
        return Setting((_rule(said),))
    if isinstance(said, (list, tuple)) and any(isinstance(each, Mapping) for each in said):
        return Setting(tuple(_rule(each) for each in said))
    return Setting((Rule(value=_frozen(said)),))


def _rule(said: Any) -> Rule:
    if not isinstance(said, Mapping) or not _is_rule(said):
        raise ValueError(f"{said!r} is no rule: give `value` or `gradient`, and `tensors` or `layers`")
    if unknown := [str(key) for key in said if key not in KEYS]:
        raise ValueError(f"a rule has no {', '.join(unknown)}; its keys are {', '.join(KEYS)}")
    if ("value" in said) == ("gradient" in said):
        raise ValueError(f"{dict(said)!r} must have either a `value` or a `gradient`")
    gradient = _frozen(said.get("gradient", ()))
    if "gradient" in said and (not isinstance(gradient, tuple) or not gradient):
        raise ValueError(
            f"the gradient {gradient!r} must be a list of values, from the first layer to the last"
        )
    tensors = said.get("tensors", ())
    return Rule(
        tensors=(tensors,) if isinstance(tensors, str) else tuple(map(str, tensors)),
        layers=_layers(said.get("layers")),
        value=_frozen(said.get("value")),
        gradient=gradient,
    )


def _layers(said: Any) -> tuple[int, int] | str | None:
    if said is None or said in _PLACES:
        return said
    if isinstance(said, (list, tuple)) and len(said) == 2 and all(type(each) is int for each in said):
        start, stop = said
        if 0 <= start < stop:
            return start, stop
    raise ValueError(f"`layers` must be [start, stop], {' or '.join(_PLACES)}, not {said!r}")


def _is_rule(said: Mapping[Any, Any]) -> bool:
    return "value" in said or "gradient" in said


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
