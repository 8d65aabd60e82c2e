"""FusionBench: a plugin platform for deep model fusion.

The names below are the public Python API; each is imported on first use, so that importing this
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

_EXPORTS: dict[str, str] = {
    "fuse": "fusionbench_core.api",
    "load": "fusionbench_core.api",
    "evaluate": "fusionbench_core.api",
    "hookimpl": "fusionbench_core.hookspecs",
    "implements": "fusionbench_core.records",
    "Batch": "fusionbench_core.tasks",
    "BuildContext": "fusionbench_core.artefact.builder",
    "Capabilities": "fusionbench_core.records",
    "Checkpoint": "fusionbench_core.checkpoints",
    "CheckRecord": "fusionbench_core.records",
    "ClassificationTask": "fusionbench_core.tasks",
    "CommandRecord": "fusionbench_core.records",
    "ConfigRecord": "fusionbench_core.records",
    "BuilderRecord": "fusionbench_core.records",
    "EvalContext": "fusionbench_core.tasks",
    "Fused": "fusionbench_core.methods",
    "FusionError": "fusionbench_core.errors",
    "FusionJob": "fusionbench_core.methods",
    "Law": "fusionbench_core.records",
    "MethodRecord": "fusionbench_core.records",
    "ModelMethod": "fusionbench_core.methods",
    "ModelPool": "fusionbench_core.pools",
    "ModelSource": "fusionbench_core.pools",
    "Paper": "fusionbench_core.records",
    "Predictor": "fusionbench_core.methods",
    "RenamedCheckpoint": "fusionbench_core.checkpoints",
    "ReporterRecord": "fusionbench_core.records",
    "SafetensorsCheckpoint": "fusionbench_core.checkpoints",
    "SourceRecord": "fusionbench_core.records",
    "StateDictCheckpoint": "fusionbench_core.checkpoints",
    "Statistic": "fusionbench_core.statistics",
    "StatisticRecord": "fusionbench_core.records",
    "Survey": "fusionbench_core.methods",
    "Task": "fusionbench_core.tasks",
    "TaskCard": "fusionbench_core.tasks",
    "TaskRecord": "fusionbench_core.records",
    "TaskResult": "fusionbench_core.tasks",
    "TensorGroup": "fusionbench_core.methods",
    "TensorInfo": "fusionbench_core.checkpoints",
    "TensorMethod": "fusionbench_core.methods",
    "load_into": "fusionbench_core.pools.source",
    "open_checkpoint": "fusionbench_core.checkpoints",
    "resolve_path": "fusionbench_core.pools",
    "wilson_interval": "fusionbench_core.tasks.result",
}


def __getattr__(name: str) -> Any:
    try:
        module = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
