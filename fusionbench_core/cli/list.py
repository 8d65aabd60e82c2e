"""`fb list`: what the installed plugins provide, read from their records alone."""

from __future__ import annotations

from typing import Any

import click

from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, json_option, table
from fusionbench_core.errors import ConfigError
from fusionbench_core.known import NAMESPACES
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import KINDS, Registry, default_registry
from fusionbench_core.suggest import did_you_mean

PLURALS = {f"{kind}s": kind for kind in KINDS} | {"statistics": "statistic"}


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [word for word in PLURALS if word.startswith(incomplete)]


@click.command(
    "list",
    epilog=examples(
        "fb list methods",
        "fb list methods --needs-no-data --output weights",
        "fb list methods --tag spectral --json",
        "fb list configs",
    ),
)
@click.argument("what", required=False, shell_complete=_complete)
@click.option("--tag", multiple=True, help="Only those with this tag. Repeatable: all must fit.")
@click.option(
    "--output",
    type=click.Choice(["weights", "adapter", "module", "predictor", "conditioned"]),
    help="Only methods that give this.",
)
@click.option("--needs-no-data", is_flag=True, help="Only methods that need neither tasks nor statistics.")
@click.option("--law", help="Only methods that keep this law, e.g. permutation.")
@json_option
def command(
    what: str | None,
    tag: tuple[str, ...],
    output: str | None,
    needs_no_data: bool,
    law: str | None,
    as_json: bool,
) -> None:
    """List what is installed: methods, sources, tasks, statistics, builders, configs, reporters,
    commands, converters or checks. Without a word: how many of each."""
    registry = default_registry()
    if not as_json and not any(plugin.status != "disabled" for plugin in registry.plugins):
        click.echo(f"no plugin is installed: pip install {' '.join(NAMESPACES.values())}", err=True)
    if what is None:
        _overview(registry, as_json)
        return
    kind = _kind(what)
    if kind != "method" and (output or needs_no_data or law):
        raise ConfigError("--output, --needs-no-data and --law choose among methods", fix="fb list methods …")
    if kind == "config":
        _presets(registry, as_json)
        return
    records = [record for record in registry.all(kind) if set(tag) <= set(record.tags)]
    if kind == "method":
        records = [record for record in records if _fits(record, output, needs_no_data, law)]
    if as_json:
        from fusionbench_core.cli.describe import record_facts

        emit_json([record_facts(kind, record) for record in records])
    elif kind == "method":
        table(
            ("method", "needs", "gives", "summary"),
            [(r.full_name, needs(r), r.capabilities.output, r.summary) for r in records],
        )
    else:
        table((kind, "summary"), [(record.full_name, record.summary) for record in records])


def needs(record: MethodRecord) -> str:
    """What a method asks for, in a few words."""
    capabilities = record.capabilities
    words = ["base"] if capabilities.base == "required" else []
    words += [*capabilities.statistics, *capabilities.tasks]
    words += ["training"] if capabilities.trains else []
    return ", ".join(words) or "-"


def _kind(what: str) -> str:
    kind = PLURALS.get(what, what)
    if kind not in KINDS:
        raise ConfigError(
            f"there is nothing called {what!r} to list",
            fix=did_you_mean(what, PLURALS) or f"choose from {', '.join(PLURALS)}",
        )
    return kind


def _fits(record: MethodRecord, output: str | None, needs_no_data: bool, law: str | None) -> bool:
    capabilities = record.capabilities
    return (
        (output is None or capabilities.output == output)
        and not (needs_no_data and (capabilities.tasks or capabilities.statistics))
        and (law is None or law in {known.value for known in capabilities.laws})
    )


def _overview(registry: Registry, as_json: bool) -> None:
    counts: dict[str, Any] = {plural: len(registry.all(kind)) for plural, kind in PLURALS.items()}
    counts["configs"] = len(preset_rows(registry))
    if as_json:
        emit_json(counts)
    else:
        table(("what", "count", "listed by"), [(what, n, f"fb list {what}") for what, n in counts.items()])


def preset_rows(registry: Registry) -> list[tuple[str, str, str]]:
    """`(name, distribution, summary)` of every preset that plugins and the core ship."""
    from fusionbench_core.config.presets import Presets, package_directory

    owners = {
        directory.resolve(): record.origin.distribution
        for record in registry.all("config")
        if record.origin and (directory := package_directory(record.package))
    }
    rows = []
    for name, file in Presets.over(None, registry.all("config")).all():
        owner = next((who for top, who in owners.items() if top in file.parents), "fusionbench-core")
        rows.append((name, owner, first_comment(file.read_text(encoding="utf-8"))))
    return rows


def first_comment(text: str) -> str:
    """The first comment of a YAML file that is not a directive such as `# @package`."""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.lstrip("# ").rstrip()
        if comment and not comment.startswith(("@", "yaml-language-server")):
            return comment
    return ""


def _presets(registry: Registry, as_json: bool) -> None:
    rows = preset_rows(registry)
    if as_json:
        keys = ("name", "distribution", "summary")
        emit_json([dict(zip(keys, row)) for row in rows])
    else:
        table(("config", "from", "summary"), rows)
