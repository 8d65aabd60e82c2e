"""Everything there is to say about a record, as plain data for `--json` and for `fb show`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fusionbench_core.records import MethodRecord, Record, TaskRecord


def record_facts(kind: str, record: Record) -> dict[str, Any]:
    """What the record itself says; nothing is imported."""
    origin = record.origin
    facts: dict[str, Any] = {
        "kind": kind,
        "name": record.full_name,
        "summary": record.summary,
        "tags": list(record.tags),
        "target": record.target,
        "distribution": origin.distribution if origin else None,
        "version": origin.version if origin else None,
    }
    if isinstance(record, MethodRecord):
        capabilities = record.capabilities
        facts["capabilities"] = {
            **{name: value for name, value in vars(capabilities).items() if name != "laws"},
            "laws": sorted(law.value for law in capabilities.laws),
        }
        if record.paper is not None:
            facts["paper"] = {"text": str(record.paper), "url": record.paper.url or None}
    if isinstance(record, TaskRecord):
        facts["provides"] = list(record.provides)
        facts["metrics"] = list(record.metrics)
    return facts


def object_facts(implementation: Any) -> dict[str, Any]:
    """What the imported implementation adds: documentation, parameters, and where its code is."""
    return {
        "documentation": inspect.getdoc(implementation) or "",
        "parameters": parameters(implementation),
        "location": location(implementation),
    }


def parameters(implementation: Any) -> list[dict[str, Any]]:
    """Name, type, default, range and description of each field of a pydantic model."""
    from fusionbench_core.config.errors import field_range

    rows = []
    for name, field in getattr(implementation, "model_fields", {}).items():
        rows.append(
            {
                "name": name,
                "type": type_text(field.annotation),
                "required": field.is_required(),
                "default": None if field.is_required() else field.get_default(call_default_factory=True),
                "range": field_range(field),
                "description": field.description or "",
            }
        )
    return rows


def type_text(annotation: Any) -> str:
    """A type as people write it: `float | None`, `'a' | 'b'`, `float | tuple[float, ...]`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(type_text, arguments)))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if annotation in (None, type(None)):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if arguments and isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(map(type_text, arguments))}]"
    if isinstance(annotation, type):
        return annotation.__name__
    return re.sub(r"\b(?:[a-zA-Z_]\w*\.)+(?=[A-Za-z_])", "", str(annotation))


def location(implementation: Any) -> str | None:
    """`file:line` of a class or function; the file relative to the working directory if it lies inside."""
    try:
        file = inspect.getsourcefile(implementation)
        line = inspect.getsourcelines(implementation)[1]
    except (TypeError, OSError):
        return None
    if file is None:
        return None
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"
