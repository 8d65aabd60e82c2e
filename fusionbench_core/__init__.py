"""FusionBench: a plugin platform for deep model fusion.

The names below are the public Python API; each is imported on first use, so that importing this
package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench_core.api import evaluate as evaluate
    from fusionbench_core.api import fuse as fuse
    from fusionbench_core.api import load as load
    from fusionbench_core.api import open_pool as open_pool
    from fusionbench_core.artefact.adapter import Adapter as Adapter
    from fusionbench_core.artefact.adapter import is_transposed as is_transposed
    from fusionbench_core.artefact.builder import BuildContext as BuildContext
    from fusionbench_core.checkpoints import Checkpoint as Checkpoint
    from fusionbench_core.checkpoints import RenamedCheckpoint as RenamedCheckpoint
    from fusionbench_core.checkpoints import SafetensorsCheckpoint as SafetensorsCheckpoint
    from fusionbench_core.checkpoints import StateDictCheckpoint as StateDictCheckpoint
    from fusionbench_core.checkpoints import TensorInfo as TensorInfo
    from fusionbench_core.checkpoints import open_checkpoint as open_checkpoint
    from fusionbench_core.checkpoints.writer import write_safetensors as write_safetensors
    from fusionbench_core.cli.progress import show_progress as show_progress
    from fusionbench_core.config.convert import Converted as Converted
    from fusionbench_core.engine.sizes import available_memory as available_memory
    from fusionbench_core.engine.survey import run_survey as run_survey
    from fusionbench_core.errors import ConfigError as ConfigError
    from fusionbench_core.errors import CorruptFile as CorruptFile
    from fusionbench_core.errors import FusionError as FusionError
    from fusionbench_core.errors import IncompatibleModels as IncompatibleModels
    from fusionbench_core.errors import InsufficientResources as InsufficientResources
    from fusionbench_core.errors import MethodError as MethodError
    from fusionbench_core.errors import MissingCapability as MissingCapability
    from fusionbench_core.errors import NonFiniteInput as NonFiniteInput
    from fusionbench_core.errors import NotFound as NotFound
    from fusionbench_core.errors import NotInstalled as NotInstalled
    from fusionbench_core.errors import Offline as Offline
    from fusionbench_core.errors import OutputError as OutputError
    from fusionbench_core.errors import TaskError as TaskError
    from fusionbench_core.errors import UnknownName as UnknownName
    from fusionbench_core.errors import UnsupportedArchitecture as UnsupportedArchitecture
    from fusionbench_core.errors import UntrustedFormat as UntrustedFormat
    from fusionbench_core.hookspecs import hookimpl as hookimpl
    from fusionbench_core.layers import count_layers as count_layers
    from fusionbench_core.layers import layer_of as layer_of
    from fusionbench_core.methods import AnyTensorMethod as AnyTensorMethod
    from fusionbench_core.methods import Fused as Fused
    from fusionbench_core.methods import FusionJob as FusionJob
    from fusionbench_core.methods import LiveMembers as LiveMembers
    from fusionbench_core.methods import Members as Members
    from fusionbench_core.methods import Method as Method
    from fusionbench_core.methods import ModelMethod as ModelMethod
    from fusionbench_core.methods import Predictor as Predictor
    from fusionbench_core.methods import StoredPieces as StoredPieces
    from fusionbench_core.methods import Survey as Survey
    from fusionbench_core.methods import TaskConditioned as TaskConditioned
    from fusionbench_core.methods import TensorGroup as TensorGroup
    from fusionbench_core.methods import TensorMethod as TensorMethod
    from fusionbench_core.native import NativeKernels as NativeKernels
    from fusionbench_core.places import cache_dir as cache_dir
    from fusionbench_core.pools import ModelPool as ModelPool
    from fusionbench_core.pools import ModelSource as ModelSource
    from fusionbench_core.pools import PooledModel as PooledModel
    from fusionbench_core.pools import resolve_path as resolve_path
    from fusionbench_core.pools.hub import hub_commit as hub_commit
    from fusionbench_core.pools.hub import locate_model as locate_model
    from fusionbench_core.pools.hub import split_revision as split_revision
    from fusionbench_core.pools.source import load_into as load_into
    from fusionbench_core.pools.vocabulary import Vocabulary as Vocabulary
    from fusionbench_core.records import BuilderRecord as BuilderRecord
    from fusionbench_core.records import Capabilities as Capabilities
    from fusionbench_core.records import CheckRecord as CheckRecord
    from fusionbench_core.records import CommandRecord as CommandRecord
    from fusionbench_core.records import ConfigRecord as ConfigRecord
    from fusionbench_core.records import ConverterRecord as ConverterRecord
    from fusionbench_core.records import Law as Law
    from fusionbench_core.records import MethodRecord as MethodRecord
    from fusionbench_core.records import Origin as Origin
    from fusionbench_core.records import Paper as Paper
    from fusionbench_core.records import ReporterRecord as ReporterRecord
    from fusionbench_core.records import SourceRecord as SourceRecord
    from fusionbench_core.records import StatisticRecord as StatisticRecord
    from fusionbench_core.records import TaskRecord as TaskRecord
    from fusionbench_core.records import implements as implements
    from fusionbench_core.report import Report as Report
    from fusionbench_core.report import curve as curve
    from fusionbench_core.report import matrix as matrix
    from fusionbench_core.report import write_reports as write_reports
    from fusionbench_core.statistics import Statistic as Statistic
    from fusionbench_core.suggest import did_you_mean as did_you_mean
    from fusionbench_core.tasks import Batch as Batch
    from fusionbench_core.tasks import ClassificationTask as ClassificationTask
    from fusionbench_core.tasks import EvalContext as EvalContext
    from fusionbench_core.tasks import Metric as Metric
    from fusionbench_core.tasks import Task as Task
    from fusionbench_core.tasks import TaskCard as TaskCard
    from fusionbench_core.tasks import TaskResult as TaskResult
    from fusionbench_core.tasks.adaptation import AdaptationTask as AdaptationTask
    from fusionbench_core.tasks.result import wilson_interval as wilson_interval
    from fusionbench_core.tasks.task_models import TaskModels as TaskModels
    from fusionbench_core.tasks.task_models import frozen as frozen
    from fusionbench_core.tasks.task_models import mean_entropy as mean_entropy
    from fusionbench_core.tasks.task_models import pull_back as pull_back
    from fusionbench_core.tasks.task_models import tasks_of as tasks_of
    from fusionbench_core.tasks.training import Training as Training

__version__ = "1.0.0"

_MODULES: dict[str, tuple[str, ...]] = {
    "fusionbench_core.api": ("evaluate", "fuse", "load", "open_pool"),
    "fusionbench_core.artefact.adapter": ("Adapter", "is_transposed"),
    "fusionbench_core.artefact.builder": ("BuildContext",),
    "fusionbench_core.checkpoints": (
        "Checkpoint",
        "RenamedCheckpoint",
        "SafetensorsCheckpoint",
        "StateDictCheckpoint",
        "TensorInfo",
        "open_checkpoint",
    ),
    "fusionbench_core.checkpoints.writer": ("write_safetensors",),
    "fusionbench_core.cli.progress": ("show_progress",),
    "fusionbench_core.config.convert": ("Converted",),
    "fusionbench_core.engine.sizes": ("available_memory",),
    "fusionbench_core.engine.survey": ("run_survey",),
    "fusionbench_core.errors": (
        "ConfigError",
        "CorruptFile",
        "FusionError",
        "IncompatibleModels",
        "InsufficientResources",
        "MethodError",
        "MissingCapability",
        "NonFiniteInput",
        "NotFound",
        "NotInstalled",
        "Offline",
        "OutputError",
        "TaskError",
        "UnknownName",
        "UnsupportedArchitecture",
        "UntrustedFormat",
    ),
    "fusionbench_core.hookspecs": ("hookimpl",),
    "fusionbench_core.layers": ("count_layers", "layer_of"),
    "fusionbench_core.methods": (
        "AnyTensorMethod",
        "Fused",
        "FusionJob",
        "LiveMembers",
        "Members",
        "Method",
        "ModelMethod",
        "Predictor",
        "StoredPieces",
        "Survey",
        "TaskConditioned",
        "TensorGroup",
        "TensorMethod",
    ),
    "fusionbench_core.native": ("NativeKernels",),
    "fusionbench_core.places": ("cache_dir",),
    "fusionbench_core.pools": ("ModelPool", "ModelSource", "PooledModel", "resolve_path"),
    "fusionbench_core.pools.hub": ("hub_commit", "locate_model", "split_revision"),
    "fusionbench_core.pools.source": ("load_into",),
    "fusionbench_core.pools.vocabulary": ("Vocabulary",),
    "fusionbench_core.records": (
        "BuilderRecord",
        "Capabilities",
        "CheckRecord",
        "CommandRecord",
        "ConfigRecord",
        "ConverterRecord",
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
    "fusionbench_core.report": ("Report", "curve", "matrix", "write_reports"),
    "fusionbench_core.statistics": ("Statistic",),
    "fusionbench_core.suggest": ("did_you_mean",),
    "fusionbench_core.tasks": (
        "Batch",
        "ClassificationTask",
        "EvalContext",
        "Metric",
        "Task",
        "TaskCard",
        "TaskResult",
    ),
    "fusionbench_core.tasks.adaptation": ("AdaptationTask",),
    "fusionbench_core.tasks.result": ("wilson_interval",),
    "fusionbench_core.tasks.task_models": (
        "TaskModels",
        "frozen",
        "mean_entropy",
        "pull_back",
        "tasks_of",
    ),
    "fusionbench_core.tasks.training": ("Training",),
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
