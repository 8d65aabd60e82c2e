"""The command line `fb`. Importing this costs click and nothing else; commands are imported on use."""

from __future__ import annotations

import click

from fusionbench_core.cli.group import OPTIONS, Fb
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.lazy import Lazy

COMMANDS = {
    "run": Lazy("fusionbench_core.cli.run", "Fuse a model pool, evaluate it and write a report."),
    "plan": Lazy("fusionbench_core.cli.plan", "Check a run and estimate its cost; read no weight."),
    "convert": Lazy("fusionbench_core.cli.convert", "Print what another tool's config is here."),
    "evaluate": Lazy("fusionbench_core.cli.evaluate", "Evaluate a model or an artefact on a task pool."),
    "list": Lazy("fusionbench_core.cli.list", "List methods, tasks, sources, presets and more."),
    "show": Lazy("fusionbench_core.cli.show", "Explain one method, task, source or preset."),
    "search": Lazy("fusionbench_core.cli.search", "Find methods, tasks and others by words."),
    "plugin": Lazy("fusionbench_core.cli.plugin", "List, inspect, check, make, enable and disable plugins."),
    "doctor": Lazy("fusionbench_core.cli.doctor", "Check this installation and say how to mend it."),
    "completion": Lazy("fusionbench_core.cli.completion", "Print a completion script for your shell."),
}
"""Built-in commands; each module holds a click command named `command`."""


def _configure(context: click.Context, parameter: click.Parameter, value) -> None:
    # Eager, so that `fb --plugin FILE --help` already lists the file's commands.
    options = context.meta.setdefault(OPTIONS, {})
    options[str(parameter.name)] = value
    if not any(options.values()):
        return
    from pathlib import Path

    from fusionbench_core.plugins import configure

    configure(
        no_plugins=options.get("no_plugins", False),
        files=[Path(file) for file in options.get("plugin", ())],
        trace_hooks=options.get("trace_hooks", False),
    )


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    import fusionbench_core
    from fusionbench_core.plugins import find

    click.echo(f"fb {fusionbench_core.__version__}")
    for plugin in find():
        state = "" if plugin.status == "found" else f"  {plugin.status}"
        click.echo(f"  {plugin.distribution} {plugin.version}{state}")
    context.exit()


@click.group(
    cls=Fb,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "fb list methods --needs-no-data",
        "fb show ties_merging",
        "fb run method=task_arithmetic method.scaling_factor=0.3",
        "fb doctor",
    ),
)
@click.option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="Also use a plugin that is one Python file. Repeatable; may follow the command.",
)
@click.option(
    "--no-plugins",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="Load no installed plugin.",
)
@click.option(
    "--trace-hooks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="Print each call of a plugin's hook on stderr, as FB_TRACE=1 does.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the versions of the core and its plugins.",
)
def main() -> None:
    """Fuse fine-tuned models: merge, mix or ensemble them, and measure what comes out."""
