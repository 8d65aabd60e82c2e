"""Sources, tasks, statistics, builders and presets."""

from __future__ import annotations

from typing import Any

from _generate.text import docstring, parameters, sentence, source_link, table
from fusionbench_core.cli import describe
from fusionbench_core.cli.list import preset_rows
from fusionbench_core.registry import Registry


def components(registry: Registry, *kinds: str) -> dict[str, str]:
    """A section for each record of these kinds."""
    parts: list[str] = []
    for kind in kinds:
        for record in registry.all(kind):
            parts += _component(record, registry, f" ({kind})" if len(kinds) > 1 else "")
    return {"components": "\n\n".join(part for part in parts if part)}


def presets(registry: Registry) -> dict[str, str]:
    """A table of all presets."""
    rows = [(f"`{name}`", owner, text) for name, owner, text in preset_rows(registry)]
    return {"presets": table(("preset", "from", "what"), rows)}


def _component(record: Any, registry: Registry, kind: str) -> list[str]:
    found = registry.resolve(record)
    facts = [("full name", f"`{record.full_name}`"), ("distribution", record.origin.distribution)]
    facts += [("provides", ", ".join(record.provides))] if getattr(record, "provides", ()) else []
    facts += [("metrics", ", ".join(record.metrics))] if getattr(record, "metrics", ()) else []
    facts += [("code", source_link(found))]
    rows = describe.parameters(found)
    return [
        f"## {record.name}{kind}",
        sentence(record.summary),
        docstring(found, skip=record.summary),
        parameters(rows) if rows else "",
        table(("", ""), facts),
    ]
