"""Config keys, from the models that validate them."""

from __future__ import annotations

from _generate.text import ROOT, parameters
from fusionbench_core.cli import describe
from fusionbench_core.config.schema import EngineConfig, FabricConfig, ReportConfig, RunConfig
from fusionbench_core.pools.config import PoolConfig
from fusionbench_core.pools.scope import Scope
from fusionbench_core.run.comparison import CompareConfig, Entry
from fusionbench_core.tasks.pool import TaskPoolConfig

_MODELS = {
    "run": (RunConfig, ""),
    "modelpool": (PoolConfig, "modelpool."),
    "scope": (Scope, "modelpool.scope."),
    "taskpool": (TaskPoolConfig, "taskpool."),
    "fabric": (FabricConfig, "fabric."),
    "engine": (EngineConfig, "engine."),
    "report": (ReportConfig, "report."),
    "compare": (CompareConfig, "compare."),
    "entry": (Entry, ""),
}
"""Name of the fragment -> the model and what stands before its keys."""


def config() -> dict[str, str]:
    """A table for each section, and the example."""
    made = {"example": (ROOT / "examples/configs/mine.yaml").read_text(encoding="utf-8").rstrip()}
    for name, (model, prefix) in _MODELS.items():
        rows = [{**row, "name": prefix + row["name"]} for row in describe.parameters(model)]
        made[name] = parameters(rows, "key")
    return made
