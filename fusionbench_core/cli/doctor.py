"""`fb doctor`: what is installed, what is wrong with it, and how to mend it."""

from __future__ import annotations

from typing import Any

import click

from fusionbench_core.cli import health
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, facts, json_option
from fusionbench_core.plugins import installed_plugins
from fusionbench_core.registry import Registry


@click.command("doctor", epilog=examples("fb doctor", "fb doctor --json", "fb doctor --no-plugins"))
@json_option
def command(as_json: bool) -> int:
    """Check versions, devices, disk, caches and plugins. The exit status is 1 if anything must be mended."""
    plugins = installed_plugins(cached=False)
    registry = Registry(plugins)
    findings = [
        *health.plugin_findings(plugins),
        *health.requirement_findings(),
        *health.disk_findings(),
        *health.foreign_findings(),
        *health.name_findings(registry),
        *health.check_findings(registry),
    ]
    broken = any(finding.level == "error" for finding in findings)
    report: dict[str, Any] = {
        "ok": not broken,
        "versions": health.versions(),
        "machine": health.machine(),
        "places": health.places(),
        "plugins": {plugin.namespace: plugin.status for plugin in plugins},
        "findings": [finding._asdict() for finding in findings],
    }
    if as_json:
        emit_json(report)
    else:
        for section in ("versions", "machine", "places", "plugins"):
            click.echo(section)
            facts(list(report[section].items()), indent="  ")
        for finding in findings:
            click.echo(f"{finding.level}: {finding.what}")
            facts([("fix", finding.fix)], indent="  ")
        if not findings:
            click.echo("nothing to mend")
    return 1 if broken else 0
