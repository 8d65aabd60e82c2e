"""`fb plugin`: which plugins there are, what is wrong with them, and switching them on and off."""

from __future__ import annotations

from typing import Any

import click

from fusionbench_core.cli import complete
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.lazy import Lazy, LazyGroup
from fusionbench_core.cli.output import emit_json, facts, json_option, table
from fusionbench_core.hookspecs import DECLARATIONS
from fusionbench_core.plugins import Plugin, find, installed_plugins, settings

COMMANDS = {
    "check": Lazy("fusionbench_core.cli.plugin_check", "Run the conformance checks on a plugin."),
    "new": Lazy("fusionbench_core.cli.plugin_new", "Write a plugin package to start from."),
    "validate": Lazy("fusionbench_core.cli.plugin_validate", "Build, install, check and test a plugin."),
}
"""Commands in modules of their own, each named `command`."""


@click.group(
    "plugin",
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=examples("fb plugin list", "fb plugin info merging", "fb plugin disable nlp_tasks"),
)
def command() -> None:
    """List, inspect, check, make, enable and disable plugins."""


@command.command("list", epilog=examples("fb plugin list", "fb plugin list --json"))
@json_option
def list_(as_json: bool) -> None:
    """Every installed plugin with its status, load time and what it provides."""
    plugins = list(installed_plugins(cached=False))
    if as_json:
        emit_json([plugin_facts(plugin) for plugin in plugins])
        return
    table(
        ("plugin", "distribution", "version", "status", "ms", "provides"),
        [
            (
                plugin.namespace,
                plugin.distribution,
                plugin.version,
                plugin.status,
                f"{plugin.load_ms:.1f}" if plugin.load_ms else "",
                provides(plugin) if plugin.status == "ok" else plugin.cause,
            )
            for plugin in plugins
        ],
    )


@command.command("info", epilog=examples("fb plugin info merging", "fb plugin info fb-merging --json"))
@click.argument("name", shell_complete=complete.plugins)
@json_option
def info(name: str, as_json: bool) -> None:
    """One plugin: where it comes from, what it provides, and what is wrong with it."""
    plugins = installed_plugins(cached=False)
    plugin = plugins.get(settings.known(name, plugins))
    assert plugin is not None
    if as_json:
        emit_json(plugin_facts(plugin))
        return
    facts(
        [
            ("plugin", plugin.namespace),
            ("status", plugin.status),
            ("why", plugin.cause),
            ("fix", plugin.fix),
            ("distribution", f"{plugin.distribution} {plugin.version}"),
            ("module", plugin.module),
            ("asks for", f"fusionbench-core{plugin.requires}" if plugin.requires else ""),
            ("load time", f"{plugin.load_ms:.1f} ms" if plugin.load_ms else ""),
            ("printed", plugin.printed.strip()),
            ("observes", ", ".join(sorted(set(plugin.hooks) - set(DECLARATIONS)))),
            ("traceback", plugin.traceback.strip()),
        ]
    )
    for kind, names in _names(plugin).items():
        click.echo(f"\n{kind}")
        for declared in names:
            click.echo(f"  {declared}")


@command.command("disable", epilog=examples("fb plugin disable nlp_tasks", "fb plugin disable fb-nlp-tasks"))
@click.argument("name", shell_complete=complete.plugins)
def disable(name: str) -> None:
    """Switch a plugin off for all later commands of this user."""
    namespace = settings.known(name, find())
    settings.switch(namespace, on=False)
    click.echo(f"{namespace} is off; `fb plugin enable {namespace}` switches it on again")


@command.command("enable", epilog=examples("fb plugin enable nlp_tasks"))
@click.argument("name", shell_complete=complete.plugins)
def enable(name: str) -> None:
    """Switch a plugin on again."""
    off = settings.disabled()
    namespace = name if name in off else settings.known(name, find())
    settings.switch(namespace, on=True)
    click.echo(f"{namespace} is on" if namespace in off else f"{namespace} was on already")


def provides(plugin: Plugin) -> str:
    """Counts in words: `24 methods, 1 config`."""
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in plugin.counts.items())


def plugin_facts(plugin: Plugin) -> dict[str, Any]:
    """A plugin as plain data: the schema of `fb plugin list --json`."""
    hidden = {"records", "hooks", "metadata", "local"}
    shown = {name: getattr(plugin, name) for name in plugin.__dataclass_fields__ if name not in hidden}
    return {
        **shown,
        "load_ms": round(plugin.load_ms, 3),
        "counts": plugin.counts,
        "fix": plugin.fix,
        "hooks": sorted(plugin.hooks),
        "names": _names(plugin),
    }


def _names(plugin: Plugin) -> dict[str, list[str]]:
    return {
        kind: [getattr(record, "full_name", None) or record.package for record in records]
        for kind, records in plugin.records.items()
        if records
    }
