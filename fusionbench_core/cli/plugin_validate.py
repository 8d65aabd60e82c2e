"""`fb plugin validate`: a plugin as its users get it, with the cores that it claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import facts

if TYPE_CHECKING:
    from fusionbench_core.testing.validation import Run

REPORT, BADGE = "fusionbench-check.json", "fusionbench-badge.json"
"""What it leaves behind."""


@click.command(
    "validate",
    epilog=examples(
        "fb plugin validate .",
        "fb plugin validate ./fb-mymethod --core newest",
        "fb plugin validate . --find-links dist --output reports",
        "fb plugin validate dist/fb_mymethod-1.0-py3-none-any.whl --keep",
    ),
)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--core",
    "cores",
    type=click.Choice(["lowest", "newest", "both"]),
    default="both",
    show_default=True,
    help="The oldest core that the plugin claims, the newest there is, or both.",
)
@click.option("--level", type=click.Choice(["fast", "full"]), default="full", show_default=True)
@click.option(
    "--find-links", multiple=True, metavar="DIR|URL", help="Also look here for packages. Repeatable."
)
@click.option("--no-index", is_flag=True, help="Look nowhere else.")
@click.option(
    "--borrow",
    is_flag=True,
    help="Use the packages installed here, but no core and no plugin: quicker, and less strict.",
)
@click.option("--keep", is_flag=True, help="Keep the environments, and say where they are.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help=f"Where {REPORT} and {BADGE} go; by default here.",
)
def command(
    path: Path,
    cores: Any,
    level: Any,
    find_links: tuple[str, ...],
    no_index: bool,
    borrow: bool,
    keep: bool,
    output: Path,
) -> int:
    """Build a plugin, install it into clean environments, run the conformance checks and its own tests there.

    PATH is a project's directory, or a wheel. The environments hold the oldest and the newest core that the
    plugin claims. Building and testing run the plugin's code with your rights; secrets in environment
    variables are not handed on.

    The exit status is 0 if everything passed, 1 if not, and 5 if a core cannot be had.
    """
    import tempfile

    from fusionbench_core.files import write_atomically
    from fusionbench_core.testing.validation import validate

    kept = Path(tempfile.mkdtemp(prefix="fb-validate-")) if keep else None
    sources = [word for place in find_links for word in ("--find-links", _absolute(place))]
    found = validate(
        path,
        cores=cores,
        level=level,
        sources=[*sources, *(["--no-index"] if no_index else [])],
        borrowed=borrow,
        keep=kept,
        tell=lambda line: click.echo(f"· {line}", err=True),
        show=lambda text: click.echo(text, nl=not text.endswith("\n")),
    )
    write_atomically(output / REPORT, found.to_json())
    write_atomically(output / BADGE, found.to_badge())
    click.echo(f"\n{found.plugin} claims fusionbench-core{found.requires}")
    for run in found.runs:
        click.echo(f"\nfusionbench-core {run.core} ({' and '.join(run.asked)})")
        facts(_facts(run), indent="  ")
    click.echo()
    facts([("report", output / REPORT), ("badge", output / BADGE), ("environments", kept)])
    return found.exit_code


def _facts(run: Run) -> list[tuple[str, Any]]:
    counts = run.check["counts"] if run.check else {}
    verdict = "" if run.check is None else "conformant" if run.check["conformant"] else "NOT conformant"
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return [
        ("result", run.status),
        ("why", run.why),
        ("checks", f"{verdict}: {told}" if verdict else ""),
        ("tests", run.tests),
    ]


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().resolve())
