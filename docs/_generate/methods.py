"""The catalogue of methods: one page each, the overview, and the matrix of laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _generate.text import attribute_docs, docstring, parameters, sentence, source_link, table
from fusionbench_core import records
from fusionbench_core.cli import describe
from fusionbench_core.known import NAMESPACES
from fusionbench_core.registry import Registry


def overview(registry: Registry) -> dict[str, str]:
    """A table for each distribution."""
    parts = []
    for namespace, distribution in NAMESPACES.items():
        found = [record for record in registry.all("method") if record.origin.namespace == namespace]
        if not found:
            continue
        rows = [
            (
                f"[`{record.name}`]({record.name}.md)",
                record.summary,
                _needs(record.capabilities),
                record.capabilities.output,
                _cost(record.capabilities),
            )
            for record in found
        ]
        parts += [
            f"## {distribution}",
            f"`pip install {distribution}`, full names `{namespace}/…`",
            table(("method", "what it does", "needs", "gives", "reading passes"), rows),
        ]
    return {"methods": "\n\n".join(parts)}


def page(record: Any, registry: Registry) -> str:
    """The page of one method."""
    cls = registry.resolve(record)
    capabilities = record.capabilities
    facts = [
        ("full name", f"`{record.full_name}`"),
        ("distribution", record.origin.distribution),
        ("needs", _needs(capabilities)),
        ("gives", _OUTPUT[capabilities.output]),
        ("reading passes", f"{_cost(capabilities)}, by {capabilities.locality}"),
        *([("devices", "any: `engine.device`")] if capabilities.device == "any" else []),
        ("trains", "yes, by gradient descent" if capabilities.trains else "no"),
        ("random", "yes: depends on `seed`" if capabilities.random else "no"),
        ("order of the models", "matters" if capabilities.ordered else "does not matter"),
        ("laws", ", ".join(f"[{law}](../laws.md#{law})" for law in _kept(record)) or "none declared"),
        ("tags", ", ".join(record.tags)),
        ("paper", _paper(record.paper)),
        ("code", source_link(cls)),
    ]
    rows = describe.parameters(cls)
    parts = [
        f"# {record.name}",
        sentence(record.summary),
        docstring(cls, skip=record.summary),
        "## Parameters",
        parameters(rows) if rows else "It has none.",
        "## Facts",
        table(("", ""), [(key, value) for key, value in facts if value]),
        "## Example",
        f"```\n{_command_example(record, rows)}\n```",
        f"```python\n{_python_example(record, rows)}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def _paper(paper: Any) -> str:
    return f"[{paper}]({paper.url})" if paper and paper.url else str(paper or "")


_OUTPUT = {
    "weights": "weights of the same architecture",
    "adapter": "an adapter that changes the base, as PEFT loads it",
    "module": "a module of a new architecture",
    "predictor": "a predictor over all models",
    "conditioned": "another model for each task, which it must be told",
}


def _needs(capabilities: records.Capabilities) -> str:
    least, most = capabilities.min_models, capabilities.max_models
    if least == most:
        count = f"exactly {least} models" if least != 1 else "exactly 1 model"
    else:
        count = f"{least} to {most} models" if most else "" if least == 1 else f"{least} or more models"
    words = [count] if count else []
    words += ["a base"] if capabilities.base == "required" else []
    words += ["no base"] if capabilities.base == "forbidden" else []
    words += [f"statistic `{name}`, hence a task for each model" for name in capabilities.statistics]
    if capabilities.tasks:
        words.append(f"of tasks: {', '.join(capabilities.tasks)}")
    return "; ".join(words) or "models only"


def _cost(capabilities: records.Capabilities) -> str:
    return str(1 + capabilities.surveys)


def _kept(record: Any) -> list[str]:
    return [law.value for law in records.Law if law in record.capabilities.laws]


def _command_example(record: Any, rows: Sequence[dict]) -> str:
    words = [f"fb run method={record.name}"]
    for row in rows:
        value = row["default"]
        if row["required"] or isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        words.append(f"method.{row['name']}={value}")
        break
    return " ".join(words)


def _python_example(record: Any, rows: Sequence[dict]) -> str:
    base = ", base" if record.capabilities.base == "required" else ""
    first = next((row for row in rows if type(row["default"]) in (int, float)), None)
    parameter = f", {first['name']}={first['default']!r}" if first else ""
    tasks = ", tasks=tasks" if record.capabilities.tasks or record.capabilities.statistics else ""
    return (
        f'from fusionbench_core import fuse\n\nfused = fuse("{record.name}", models{base}{parameter}{tasks})'
    )


def laws(registry: Registry) -> dict[str, str]:
    """Each law in words, and which method keeps which."""
    described = attribute_docs(records, "Law")
    words = [f"## {law.value}\n\n{sentence(described[law.name])}" for law in records.Law]
    rows = [
        (
            f"[`{record.full_name}`](methods/{record.name}.md)",
            *("✓" if law in record.capabilities.laws else "" for law in records.Law),
        )
        for record in registry.all("method")
    ]
    return {
        "laws": "\n\n".join(words),
        "matrix": table(("method", *(law.value for law in records.Law)), rows),
    }
