"""Hooks from their specifications, records from their fields."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from _generate.text import attribute_docs, docstring, entries, roles, signature, table
from fusionbench_core import hookspecs, records


def specifications() -> Iterator[tuple[str, Any]]:
    """Every hook specification, in the order of a run's life."""
    return ((name, found) for name, found in vars(hookspecs).items() if name.startswith("fb_"))


def record_types() -> list[type]:
    """Every class of records, and what records are made of."""
    found = [value for value in vars(records).values() if inspect.isclass(value)]
    return [cls for cls in found if cls.__module__ == records.__name__ and cls is not records.Law]


def hooks() -> dict[str, str]:
    """Declarations, observers and records as sections."""
    found = dict(specifications())
    sections = {
        name: f"### {name}\n\n```python\n{name}{signature(hook)}\n```\n\n{docstring(hook)}"
        for name, hook in found.items()
    }
    declared = [text for name, text in sections.items() if name in hookspecs.DECLARATIONS]
    observing = [text for name, text in sections.items() if name not in hookspecs.DECLARATIONS]
    return {
        "about": docstring(hookspecs),
        "declarations": "\n\n".join(declared),
        "observers": "\n\n".join(observing),
        "records": "\n\n".join(map(_record, record_types())),
        "law": f"{docstring(records.Law)}\n\n{_laws_table()}",
        "implements": docstring(records.implements),
    }


def _record(cls: type) -> str:
    fields = _fields(cls)
    more = "It has the fields of [`Record`](#record)" if _is_record(cls) else ""
    more += ", and" if more and fields else "." if more else ""
    parts = [f"### {cls.__name__}", docstring(cls, sections=False), more, fields]
    return "\n\n".join(part for part in parts if part)


def _laws_table() -> str:
    described = attribute_docs(records, "Law")
    return table(("law", "what"), [(f"`Law.{law.name}`", described[law.name]) for law in records.Law])


def _fields(cls: type) -> str:
    described = {}
    for base in reversed(cls.__mro__):
        if base.__module__ == records.__name__:
            described |= attribute_docs(records, base.__name__) | _arguments(base)
    rows = []
    inherited = records.Record.__dataclass_fields__ if _is_record(cls) else ()
    for name, field in cls.__dataclass_fields__.items():
        if name in inherited:
            continue
        default = "required"
        if field.default is not inspect.Parameter.empty and "MISSING" not in repr(field.default):
            default = f"`{'()' if field.default == () else _default(field.default)}`"
        rows.append((f"`{name}`", f"`{field.type}`", default, described.get(name, "")))
    return table(("field", "type", "default", "what"), rows) if rows else ""


def _is_record(cls: type) -> bool:
    return issubclass(cls, records.Record) and cls is not records.Record


def _default(value: Any) -> str:
    if isinstance(value, frozenset):
        return "frozenset()"
    return "Capabilities()" if isinstance(value, records.Capabilities) else repr(value)


def _arguments(cls: type) -> dict[str, str]:
    text = inspect.getdoc(cls) if cls.__doc__ else ""
    found = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", text or "", re.MULTILINE)
    listed = entries(found[1]) if found else []
    return {name: roles(said) for name, said in listed if name}
