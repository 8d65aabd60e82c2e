"""A run: from a validated config to a fused, evaluated and reported model."""

from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.prepare import Prepared, prepare
from fusionbench_core.run.runner import Runner
from fusionbench_core.run.state import Run

__all__ = ["Prepared", "Run", "RunDirectory", "Runner", "prepare"]
