"""Everything that a run measured, in the shape that FusionBench's scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fusionbench_core.errors import ConfigError, CorruptFile
from fusionbench_core.report.averages import averages, number
from fusionbench_core.report.plain import plain

if TYPE_CHECKING:
    from fusionbench_core.tasks.result import TaskResult

SCHEMA_VERSION = 1

RESERVED = ("model_info", "average", "fusionbench")
"""Keys of a report that are not tasks."""

_FIRST = ("accuracy", "loss")
_LAST = ("n", "split", "interval", "intervals", "seconds", "fingerprint", "samples_sha256", "task_given")
_NOT_METRICS = frozenset({*_LAST, "task", "samples"})


def check_task_names(names: Iterable[str]) -> None:
    """Refuse names that a report uses for something else.

    Raises:
        ConfigError: if a task is called `model_info`, `average` or `fusionbench`, or has no name.
    """
    for name in names:
        if name in RESERVED or not name:
            raise ConfigError(
                f"a task cannot be called {name!r}",
                why=f"reports use {', '.join(RESERVED)} for something else" if name else "it needs a name",
                fix="rename it in the config: the key under `taskpool.tasks` is the task's name",
            )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did, with what, and what came out. Immutable; holds JSON values only.

    Everything is optional but `tasks`, so that a run that stopped early can be reported too. The
    fields from `status` on are the `fusionbench` entry of the file; `report/schema_v1.json` says
    exactly what they hold.

    Attributes:
        tasks: Task name -> `TaskResult` or its `to_json()`, in the order of the task pool.
        model_info: `trainable_params`, `all_params`; `trainable_percentage` is a fraction, filled in.
        status: `complete`, `partial`, `failed` or `interrupted`.
        name: Name of the run.
        created: When it started, ISO 8601.
        command: The command line, argument by argument.
        method: `name`, `parameters`, `distribution`, `version`, `paper`, `summary`, `formula`.
        modelpool: `base` and `models`: name -> `reference`, `fingerprint`.
        taskpool: `split` and `cards`: task -> `title`, `version`, `source`, `licence`, `split`.
        transductive: Whether the method adapted to test data.
        adaptation_data: What an adaptive method saw: task -> split, number of samples, labelled.
        baselines: `pretrained`, `individual`, `multi_task`, or another model to compare with: task ->
            `accuracy`, `loss`, `interval`, `n`, and `recorded: true` where the number was not measured
            in this run.
        artefact: `path`, `content_hash`, `bytes`.
        timings: Stage -> seconds.
        plugins: `namespace`, `distribution`, `version`, `status` of each.
        details: What the method says about itself; see :mod:`fusionbench_core.report.details`.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    model_info: Mapping[str, Any] = field(default_factory=dict)
    status: str = "complete"
    name: str = ""
    created: str | None = None
    command: list[str] = field(default_factory=list)
    method: Mapping[str, Any] = field(default_factory=dict)
    modelpool: Mapping[str, Any] = field(default_factory=dict)
    taskpool: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    transductive: bool = False
    adaptation_data: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    artefact: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    plugins: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_task_names(self.tasks)
        baselines = {
            kind: {task: task_entry(found) for task, found in measured.items()}
            for kind, measured in self.baselines.items()
        }
        made = {
            "tasks": {name: task_entry(result) for name, result in self.tasks.items()},
            "model_info": _model_info(self.model_info),
            "baselines": baselines,
        }
        for own in fields(self):
            object.__setattr__(self, own.name, plain(made.get(own.name, getattr(self, own.name))))

    @property
    def average(self) -> dict[str, Any]:
        """`accuracy`, `loss`, `normalized_accuracy`, `worst_accuracy`, `interval` over all tasks."""
        return averages(self.tasks, self.baselines.get("individual", {}))

    @property
    def task_given(self) -> bool:
        """Whether the model was told which task it is measured on."""
        return any(entry.get("task_given") for entry in self.tasks.values())

    @property
    def label(self) -> str:
        """What to call this run in a sentence: its name, or that of its method."""
        return self.name or self.method.get("name") or "model"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict: FusionBench's report, and one more entry, `fusionbench`."""
        run = {own.name: getattr(self, own.name) for own in fields(self)[2:]}
        return plain(
            {
                "model_info": self.model_info,
                **self.tasks,
                "average": self.average,
                "fusionbench": {"schema_version": SCHEMA_VERSION, **run},
            }
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of :meth:`to_json`. Reports that FusionBench wrote can be read as well.

        Raises:
            CorruptFile: if this is no report, or one of a later version of the format.
        """
        if not isinstance(data, Mapping) or "average" not in data:
            raise CorruptFile("this is not a report", why="it has no entry `average`")
        run = dict(data.get("fusionbench", {}))
        version = run.pop("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise CorruptFile(
                f"this report has format version {version}, and {SCHEMA_VERSION} is the latest known",
                fix="pip install --upgrade fusionbench-core",
            )
        known = {own.name for own in fields(cls)[2:]}
        tasks = {
            key: value for key, value in data.items() if key not in RESERVED and isinstance(value, Mapping)
        }
        return cls(
            tasks=tasks,
            model_info=data.get("model_info") or {},
            **{key: value for key, value in run.items() if key in known},
        )


def task_entry(result: TaskResult | Mapping[str, Any]) -> dict[str, Any]:
    """A task's entry: metrics, then `n`, `split`, `interval`, `seconds`, `fingerprint`, `samples_sha256`.

    `interval` is that of the accuracy; `intervals` stays where other metrics have one too.
    """
    given = plain(result if isinstance(result, Mapping) else result.to_json())
    intervals = dict(given.get("intervals") or {})
    facts = {
        **given,
        "interval": intervals.pop("accuracy", None) or given.get("interval"),
        "intervals": intervals or None,
    }
    metrics = [key for key in (*_FIRST, *given) if key in given and key not in _NOT_METRICS]
    known = [key for key in _LAST if facts.get(key) is not None]
    return {key: facts[key] for key in (*dict.fromkeys(metrics), *known)}


def metrics_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Metric name -> value of a task's entry."""
    return {key: value for key, value in entry.items() if key not in _NOT_METRICS and number(value)}


def _model_info(given: Mapping[str, Any]) -> dict[str, Any]:
    trainable, every = given.get("trainable_params"), given.get("all_params")
    share = trainable / every if number(trainable) and number(every) and every else None
    return {
        "trainable_params": trainable,
        "all_params": every,
        "trainable_percentage": share,
        **{key: value for key, value in given.items() if value is not None},
    }
