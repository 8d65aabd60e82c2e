"""What each word after `fb run` asks for: another choice of a group, or another value of a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fusionbench_core.errors import ConfigError

COMPONENTS = ("method", "modelpool", "taskpool")
"""Groups that name one component: choosing another one replaces the whole section."""

GROUPS = (*COMPONENTS, "fabric", "report")

_OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=+~\s][^=\s]*?)(?:=(?P<value>.*))?\Z", re.DOTALL)
_NULL = frozenset({"null", "none", "None", ""})


@dataclass
class Request:
    """The overrides, sorted by what they do.

    Args:
        choices: Component group -> the choice asked for, None to leave it out.
        groups: Overrides of other groups, as `key=choice`; whether a config has them decides the `+`.
        values: Everything else, ready for Hydra.
        searchpath: Extra entries of `hydra.searchpath`.
    """

    choices: dict[str, str | None] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    searchpath: list[str] = field(default_factory=list)

    def values_of(self, group: str) -> list[str]:
        """The overrides inside one section."""
        return [text for text in self.values if text.lstrip("+~").startswith((f"{group}.", f"{group}["))]


def sort(overrides: Sequence[str], is_group: Callable[[str], bool]) -> Request:
    """Sort command-line overrides; `method.density=0.2` gets its `++`, Hydra's own signs stay.

    Raises:
        ConfigError: A word is no override.
    """
    request = Request()
    for text in overrides:
        match = _OVERRIDE.match(text.strip())
        sign, key, value = match.group("sign", "key", "value") if match else (None, None, None)
        if key is None or (value is None and sign != "~"):
            raise ConfigError(
                f"{text!r} is no override",
                why="overrides read key=value",
                fix="e.g. method=ties_merging, method.density=0.2, ~taskpool",
            )
        if key in COMPONENTS and not _is_literal(value):
            _choose(request, key, sign, value)
        elif key == "hydra.searchpath":
            request.searchpath += _list(value or "")
        elif sign:
            request.values.append(text)
        elif "." not in key and not _is_literal(value) and (key in GROUPS or "/" in key or is_group(key)):
            request.groups.append(text)
        else:
            request.values.append(text if key.startswith("hydra.") else f"++{text}")
    return request


def _choose(request: Request, key: str, sign: str | None, value: str | None) -> None:
    if sign == "~" or value is None or value.strip() in _NULL:
        request.choices[key] = None
    else:
        request.choices[key] = value.strip().strip("'\"")


def _is_literal(value: str | None) -> bool:
    return value is not None and value.lstrip().startswith(("{", "["))


def _list(value: str) -> list[str]:
    return [entry.strip().strip("'\"") for entry in value.strip().strip("[]").split(",") if entry.strip()]
