"""`fb show`: all about one registered thing or preset."""

from __future__ import annotations

from typing import Any

import click

from fusionbench_core.cli import complete
from fusionbench_core.cli.describe import object_facts, record_facts
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, facts, json_option, table
from fusionbench_core.errors import FusionError, UnknownName
from fusionbench_core.records import Record
from fusionbench_core.registry import KINDS, Registry, default_registry
from fusionbench_core.suggest import did_you_mean

SHOWN = tuple(kind for kind in KINDS if kind != "config")
NAMED = (*SHOWN, "config")


@click.command(
    "show",
    epilog=examples(
        "fb show ties_merging",
        "fb show method ties_merging",
        "fb show merging/ties_merging --json",
        "fb show fabric/cpu",
    ),
)
@click.argument("words", metavar="[KIND] NAME", nargs=-1, required=True, shell_complete=complete.names)
@click.option("--kind", type=click.Choice(NAMED), help="Look only among these.")
@json_option
def command(words: tuple[str, ...], kind: str | None, as_json: bool) -> None:
    """Explain one method, source, task, statistic or preset: its formula, its parameters and what
    it needs."""
    name, kind = _asked(words, kind)
    registry = default_registry()
    found = _found(registry, name, kind)
    preset = _preset(registry, name) if kind in (None, "config") else None
    if not found and preset is None:
        raise _unknown(registry, name, kind)
    described = [
        {**record_facts(which, record), **object_facts(registry.resolve(record))} for which, record in found
    ]
    if preset is not None:
        described.append(preset)
    if as_json:
        emit_json(described[0] if len(described) == 1 else described)
        return
    for index, description in enumerate(described):
        if index:
            click.echo()
        _print(description)


def _asked(words: tuple[str, ...], kind: str | None) -> tuple[str, str | None]:
    """Name and kind of `NAME` or `KIND NAME`."""
    *first, name = words
    if not first:
        return name, kind
    if len(first) > 1 or kind is not None:
        raise click.UsageError(f"one name at a time, and not {' '.join(words)!r}")
    # `fb list` says "methods".
    named = first[0] if first[0] in NAMED else first[0].removesuffix("s")
    if named not in NAMED:
        raise UnknownName(
            f"{first[0]!r} is no kind of thing",
            why="before the name there may be its kind, and nothing else",
            fix=did_you_mean(first[0], NAMED) or f"choose from {', '.join(NAMED)}",
        )
    return name, named


def _found(registry: Registry, name: str, kind: str | None) -> list[tuple[str, Record]]:
    found = []
    for which in SHOWN if kind is None else [kind] if kind in SHOWN else []:
        try:
            found.append((which, registry.find(which, name)))
        except UnknownName:
            continue
        except FusionError:
            if kind is None and found:
                continue
            raise
    return found


def _preset(registry: Registry, name: str) -> dict[str, Any] | None:
    from fusionbench_core.config.presets import Presets

    file = Presets.over(None, registry.all("config")).find(name)
    if file is None:
        return None
    return {"kind": "config", "name": name, "file": str(file), "text": file.read_text(encoding="utf-8")}


def _unknown(registry: Registry, name: str, kind: str | None) -> FusionError:
    if kind is not None and kind != "config":
        try:
            registry.find(kind, name)
        except FusionError as error:
            return error
    from fusionbench_core.cli.list import preset_rows

    try:
        registry.find("method", name)
    except UnknownName as error:
        # A known method that is not installed has an install line, which is better than any suggestion.
        if error.fix and error.fix.startswith("pip install"):
            return error
    names = [known for which in SHOWN for known in registry.names(which) if ("/" in known) == ("/" in name)]
    names += [row[0] for row in preset_rows(registry)]
    return UnknownName(
        f"nothing is called {name!r}",
        fix=did_you_mean(name, names) or "fb search finds names by words; fb list shows what there is",
    )


def _print(described: dict[str, Any]) -> None:
    if described["kind"] == "config":
        click.echo(f"{described['name']}   {described['file']}\n")
        click.echo(described["text"].rstrip())
        return
    click.echo(f"{described['name']}   {described['summary']}\n")
    if described["documentation"]:
        click.echo(described["documentation"] + "\n")
    if described["parameters"]:
        click.echo("Parameters")
        table(
            ("name", "type", "default", "range", "description"),
            [
                (
                    row["name"],
                    row["type"],
                    "required" if row["required"] else repr(row["default"]),
                    row["range"],
                    row["description"],
                )
                for row in described["parameters"]
            ],
        )
        click.echo()
    capabilities = described.get("capabilities") or {}
    paper = described.get("paper") or {}
    facts(
        [
            ("needs", _needs(capabilities)),
            ("gives", capabilities.get("output")),
            ("cost", _cost(capabilities)),
            ("laws", ", ".join(capabilities.get("laws", ()))),
            ("provides", ", ".join(described.get("provides", ()))),
            ("metrics", ", ".join(described.get("metrics", ()))),
            ("tags", ", ".join(described["tags"])),
            ("paper", paper.get("text")),
            ("url", paper.get("url")),
            ("from", f"{described['distribution']} {described['version']}"),
            ("code", described["location"]),
            ("example", _example(described)),
        ]
    )


def _needs(capabilities: dict[str, Any]) -> str:
    if not capabilities:
        return ""
    most = capabilities["max_models"]
    least = capabilities["min_models"]
    models = (
        f"{least} models"
        if most == least
        else f"{least} to {most} models"
        if most
        else f"{least} or more models"
    )
    if least == 1:
        models = models.replace("1 models", "1 model")
    words = [models]
    if capabilities["base"] != "optional":
        words.append(f"base model {capabilities['base']}")
    words += [f"statistic {name}" for name in capabilities["statistics"]]
    words += [f"{name} of tasks" for name in capabilities["tasks"]]
    return ", ".join(words)


def _cost(capabilities: dict[str, Any]) -> str:
    if not capabilities:
        return ""
    passes = 1 + capabilities["surveys"]
    words = [f"{passes} reading pass{'es' if passes > 1 else ''}", f"by {capabilities['locality']}"]
    words += ["gradient descent"] if capabilities["trains"] else []
    words += ["random"] if capabilities["random"] else []
    words += ["on any device"] if capabilities["device"] == "any" else []
    return ", ".join(words)


def _example(described: dict[str, Any]) -> str:
    short = described["name"].rpartition("/")[2]
    if described["kind"] == "method":
        first = next((row for row in described["parameters"] if not row["required"]), None)
        value = first["default"] if first else None
        plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        return f"fb run method={short}" + (f" method.{first['name']}={value}" if first and plain else "")
    if described["kind"] == "command":
        return f"fb {short.replace('_', '-')} --help"
    return ""
