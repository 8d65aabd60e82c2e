"""`fb run` with a config of several stages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.cli.finished import show_report
from fusionbench_core.cli.output import emit_json

if TYPE_CHECKING:
    from fusionbench_core.registry import Registry


def run_in_stages(
    values: Mapping[str, Any], registry: Registry, directory: Path | None, as_json: bool, quiet: bool
) -> None:
    """Run the stages and what is made of them; show the report of the last.

    Raises:
        FusionError: what stopped a run; with the same output directory, finished ones are not repeated.
    """
    from fusionbench_core.cli.progress import make_console
    from fusionbench_core.run import RunDirectory
    from fusionbench_core.run.stages import run_stages

    if directory is None:
        directory = Path(values.get("output_dir") or f"runs/stages-{datetime.now():%Y%m%d-%H%M%S}")
    console = make_console(quiet or as_json)
    try:
        report = run_stages(values, registry, directory, console, ["fb", *sys.argv[1:]])
    finally:
        console.close()
    if as_json:
        emit_json(report.to_json())
    else:
        show_report(report, RunDirectory(directory))
