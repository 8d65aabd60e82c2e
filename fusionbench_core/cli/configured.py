"""What `fb run` and `fb plan` have in common: options that say where the config comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.complete import overrides as complete_overrides

if TYPE_CHECKING:
    from fusionbench_core.config.schema import RunConfig
    from fusionbench_core.registry import Registry


def config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config-path`, `--config-name` and overrides, as FusionBench's users type them; or `--mergekit`."""
    function = click.argument(
        "overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete_overrides
    )(function)
    function = click.option(
        "--config-name", "-n", metavar="NAME", help="Root config; by default the one a plugin offers."
    )(function)
    function = click.option(
        "--mergekit",
        metavar="FILE",
        help="A config of mergekit instead; `fb convert` shows what is made of it.",
    )(function)
    return click.option(
        "--config-path", "-c", metavar="DIR", help="Directory of your own configs, or one YAML file."
    )(function)


@dataclass(frozen=True)
class Configured:
    """What the options and overrides of a command say.

    Attributes:
        values: The composed values.
        registry: Where names come from.
        file: The root config's file, to name where a value is wrong; none if values were typed.
        directory: The user's directory of configs, if there is one.
    """

    values: dict[str, Any]
    registry: Registry
    file: Path | None
    directory: Path | None


def compose_values(
    overrides: Sequence[str],
    config_path: str | None,
    config_name: str | None,
    mergekit: str | None = None,
) -> Configured:
    """Compose what a command was given. Remarks on a config of mergekit go to stderr.

    Raises:
        ConfigError: whatever is wrong with the words or the files.
    """
    from fusionbench_core.config import compose
    from fusionbench_core.registry import default_registry

    registry = default_registry()
    if mergekit is not None:
        if config_path or config_name:
            raise click.UsageError("--mergekit is the config; give neither --config-path nor --config-name")
        values = _compose_converted(overrides, Path(mergekit), registry)
        return Configured(values, registry, Path(mergekit), None)
    composed = compose(overrides, config_path, config_name, registry)
    file = composed.file_of_values(overrides)
    return Configured(composed.values, registry, file, composed.directory)


def _compose_converted(overrides: Sequence[str], file: Path, registry: Registry) -> dict[str, Any]:
    """The values of a config of mergekit, with overrides."""
    import tempfile

    from fusionbench_core.config import compose
    from fusionbench_core.config.convert import convert

    converted = convert(file, registry, "mergekit")
    for _, note in converted.notes:
        click.echo(f"note: {note}", err=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "converted.yaml"
        root.write_text(converted.to_yaml(), encoding="utf-8")
        return compose(overrides, root, None, registry).values


def validate_run(values: dict[str, Any], file: Path | None) -> RunConfig:
    """Validate composed values.

    Raises:
        ConfigError: listing every problem.
    """
    from pydantic import ValidationError

    from fusionbench_core.config import RunConfig, explain

    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise explain(error, RunConfig, file=file) from error
