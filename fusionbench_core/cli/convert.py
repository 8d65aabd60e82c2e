"""`fb convert`: a config of another tool as one of this program."""

from __future__ import annotations

from pathlib import Path

import click

from fusionbench_core.cli.help import examples


@click.command(
    "convert",
    epilog=examples("fb convert mergekit.yml", "fb convert mergekit.yml -o merge.yaml", "fb list converters"),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--from", "tool", default="mergekit", show_default=True, help="The tool that the config is for."
)
@click.option("--output", "-o", metavar="FILE", type=click.Path(path_type=Path), help="Write it there.")
def command(file: Path, tool: str, output: Path | None) -> None:
    """Print the config that does here what FILE does in another tool.

    What is done otherwise, or ignored, is a comment. `fb run --config-path OUTPUT` runs the result; no model
    is opened.
    """
    from fusionbench_core.config.convert import convert
    from fusionbench_core.errors import OutputError
    from fusionbench_core.files import write_atomically
    from fusionbench_core.registry import default_registry

    text = convert(file, default_registry(), tool).to_yaml()
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists():
        raise OutputError(f"{output} exists already", fix="choose another file, or remove this one")
    write_atomically(output, text)
