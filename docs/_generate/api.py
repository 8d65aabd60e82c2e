"""The public names of `fusionbench_core`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import fusionbench_core
from _generate.text import docstring, parameters, roles, signature, table
from fusionbench_core import errors, records
from fusionbench_core.cli import describe

_GROUPS: dict[str, Callable[[Any], bool]] = {
    "functions": inspect.isfunction,
    "records": lambda found: inspect.isclass(found) and found.__module__ == records.__name__,
    "errors": lambda found: inspect.isclass(found) and issubclass(found, errors.FusionError),
    "classes": inspect.isclass,
    "others": lambda found: True,
}


_OTHERS = {
    "AnyTensorMethod": "Type of a field that holds another tensor method: in configs its name, or a mapping "
    "of `name` and parameters. It is looked up and validated with the method that holds it, which derives "
    "its own `capabilities`, `check`, `statistics` and `survey` from it.",
    "hookimpl": "The marker of hook implementations: `@hookimpl` before a function.",
}


def public() -> list[str]:
    """Every public name."""
    return [name for name in fusionbench_core.__all__ if not name.startswith("_")]


def api() -> dict[str, str]:
    """Functions and classes as sections, records and errors as lists of links."""
    left = {name: getattr(fusionbench_core, name) for name in public()}
    made: dict[str, str] = {}
    for title, fits in _GROUPS.items():
        chosen = {name: found for name, found in left.items() if fits(found)}
        left = {name: found for name, found in left.items() if name not in chosen}
        if title == "records":
            made[title] = ", ".join(f"[`{name}`](hooks.md#{name.lower()})" for name in chosen)
        elif title == "errors":
            made[title] = ", ".join(f"`{name}`" for name in chosen)
        else:
            parts = [part for name, found in chosen.items() for part in _public_object(name, found)]
            made[title] = "\n\n".join(part for part in parts if part)
    return made


def _public_object(name: str, found: Any) -> list[str]:
    if inspect.isfunction(found):
        return [f"### {name}", f"```python\n{name}{signature(found)}\n```", docstring(found)]
    if name in _OTHERS:
        return [f"### {name}", _OTHERS[name]]
    parts = [f"### {name}", docstring(found)]
    fields = getattr(found, "model_fields", None)
    if fields:
        parts.append(parameters(describe.parameters(found)))
    elif "__init__" in vars(found) and found.__init__ is not object.__init__:
        parts.append(f"```python\n{name}{signature(found.__init__, drop_self=True)}\n```")
    for own, member in _members(found):
        text = f"{found.__name__}.{own}{signature(member, drop_self=True)}"
        parts += [f"#### {name}.{own}", f"```python\n{text}\n```", docstring(member)]
    properties = [
        (f"`{own}`", _first_line(member)) for own, member in vars(found).items() if _is_property(own, member)
    ]
    if properties:
        parts.append(table(("property", "what"), properties))
    return parts


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield name, function


def _is_property(name: str, member: Any) -> bool:
    return not name.startswith("_") and (isinstance(member, property) or hasattr(member, "attrname"))


def _first_line(member: Any) -> str:
    text = inspect.getdoc(getattr(member, "fget", None) or getattr(member, "func", None)) or ""
    return roles(text.partition("\n\n")[0].replace("\n", " "))
