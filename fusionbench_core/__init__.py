"""FusionBench: a plugin platform for deep model fusion.

The names below are the public Python API; each is imported on first use, so that importing this
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench_core.api import evaluate as evaluate, fuse as fuse, load as load
    from fusionbench_core.artefact.builder import BuildContext as BuildContext
    from fusionbench_core.cache import cache_dir as cache_dir
    from fusionbench_core.checkpoints import (
        Checkpoint as Checkpoint,
        RenamedCheckpoint as RenamedCheckpoint,
        SafetensorsCheckpoint as SafetensorsCheckpoint,
        StateDictCheckpoint as StateDictCheckpoint,
        TensorInfo as TensorInfo,
        open_checkpoint as open_checkpoint,
    )
    from fusionbench_core.engine.writer import write_safetensors as write_safetensors
    from fusionbench_core.errors import (
        ConfigError as ConfigError,
        CorruptFile as CorruptFile,
        FusionError as FusionError,
        IncompatibleModels as IncompatibleModels,
        MethodError as MethodError,
        MissingCapability as MissingCapability,
        NonFiniteInput as NonFiniteInput,
        NotFound as NotFound,
        Offline as Offline,
        OutputError as OutputError,
        TaskError as TaskError,
        UnknownName as UnknownName,
        UntrustedFormat as UntrustedFormat,
    )
    from fusionbench_core.hookspecs import hookimpl as hookimpl
    from fusionbench_core.methods import (
        Fused as Fused,
        FusionJob as FusionJob,
        Method as Method,
        ModelMethod as ModelMethod,
        Predictor as Predictor,
        Survey as Survey,
        TensorGroup as TensorGroup,
        TensorMethod as TensorMethod,
    )
    from fusionbench_core.pools import (
        ModelPool as ModelPool,
        ModelSource as ModelSource,
        PooledModel as PooledModel,
        resolve_path as resolve_path,
    )
    from fusionbench_core.pools.source import load_into as load_into
    from fusionbench_core.records import (
        BuilderRecord as BuilderRecord,
        Capabilities as Capabilities,
        CheckRecord as CheckRecord,
        CommandRecord as CommandRecord,
        ConfigRecord as ConfigRecord,
        Law as Law,
        MethodRecord as MethodRecord,
        Origin as Origin,
        Paper as Paper,
        ReporterRecord as ReporterRecord,
        SourceRecord as SourceRecord,
        StatisticRecord as StatisticRecord,
        TaskRecord as TaskRecord,
        implements as implements,
    )
    from fusionbench_core.report import curve as curve, matrix as matrix
    from fusionbench_core.statistics import Statistic as Statistic
    from fusionbench_core.tasks import (
        Batch as Batch,
        ClassificationTask as ClassificationTask,
        EvalContext as EvalContext,
        Task as Task,
        TaskCard as TaskCard,
        TaskResult as TaskResult,
    )
    from fusionbench_core.tasks.adaptation import AdaptationTask as AdaptationTask
    from fusionbench_core.tasks.result import wilson_interval as wilson_interval

__version__ = "1.0.0"

_MODULES: dict[str, tuple[str, ...]] = {
    "fusionbench_core.api": ("evaluate", "fuse", "load"),
    "fusionbench_core.artefact.builder": ("BuildContext",),
    "fusionbench_core.cache": ("cache_dir",),
    "fusionbench_core.checkpoints": (
        "Checkpoint",
        "RenamedCheckpoint",
        "SafetensorsCheckpoint",
        "StateDictCheckpoint",
        "TensorInfo",
        "open_checkpoint",
    ),
    "fusionbench_core.engine.writer": ("write_safetensors",),
    "fusionbench_core.errors": (
        "ConfigError",
        "CorruptFile",
        "FusionError",
        "IncompatibleModels",
        "MethodError",
        "MissingCapability",
        "NonFiniteInput",
        "NotFound",
        "Offline",
        "OutputError",
        "TaskError",
        "UnknownName",
        "UntrustedFormat",
    ),
    "fusionbench_core.hookspecs": ("hookimpl",),
    "fusionbench_core.methods": (
        "Fused",
        "FusionJob",
        "Method",
        "ModelMethod",
        "Predictor",
        "Survey",
        "TensorGroup",
        "TensorMethod",
    ),
    "fusionbench_core.pools": ("ModelPool", "ModelSource", "PooledModel", "resolve_path"),
    "fusionbench_core.pools.source": ("load_into",),
    "fusionbench_core.records": (
        "BuilderRecord",
        "Capabilities",
        "CheckRecord",
        "CommandRecord",
        "ConfigRecord",
        "Law",
        "MethodRecord",
        "Origin",
        "Paper",
        "ReporterRecord",
        "SourceRecord",
        "StatisticRecord",
        "TaskRecord",
        "implements",
    ),
    "fusionbench_core.report": ("curve", "matrix"),
    "fusionbench_core.statistics": ("Statistic",),
    "fusionbench_core.tasks": (
        "Batch",
        "ClassificationTask",
        "EvalContext",
        "Task",
        "TaskCard",
        "TaskResult",
    ),
    "fusionbench_core.tasks.adaptation": ("AdaptationTask",),
    "fusionbench_core.tasks.result": ("wilson_interval",),
}
_EXPORTS: dict[str, str] = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_EXPORTS, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    try:
        module = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
