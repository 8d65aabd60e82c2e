"""What plugins declare: small frozen records that name their implementation by a string.

A record is cheap to make and to read. It never imports what it describes: `target` is a
`"module:Object"` string that the registry resolves on first use. This module needs nothing but the
standard library, so that `fb list` starts in a blink.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints


class Law(str, Enum):
    """An algebraic law that a method keeps, up to rounding. Executable: the conformance kit runs it."""

    IDENTICAL = "identical"
    """Fusing copies of one model gives that model."""
    SINGLE = "single"
    """Fusing one model alone gives that model."""
    PERMUTATION = "permutation"
    """The order of the models does not matter."""
    BASE_FIXED_POINT = "base_fixed_point"
    """Models equal to the base give the base."""
    TRANSLATION = "translation"
    """Adding one constant to all models and the base adds it to the result."""
    SCALE = "scale"
    """Scaling all models and the base scales the result."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a method needs, gives and promises. The plan, `fb list`, the kit and the docs read it."""

    base: Literal["required", "optional", "forbidden"] = "optional"
    """Whether the pool must name a base (pre-trained) model."""
    min_models: int = 1
    max_models: int | None = None
    """How many models may be fused, the base not counted; None for any number."""
    locality: Literal["element", "row", "tensor", "layer", "model"] = "element"
    """How much must be seen at once to compute one output entry; decides how the engine streams."""
    scratch: tuple[float, float] = (2, 5)
    """Upper bound of the memory that merging one piece takes, in copies of the piece in the dtype of the
    arithmetic: so many for each model, and so many besides, the base's among them. `TensorMethod.scratch`
    can say more of single tensors."""
    device: Literal["cpu", "any"] = "cpu"
    """Where a `TensorMethod` can merge: on the CPU, or on any device that the tensors of a group are on.
    Worth it for what computes long on a tensor; what only reads it waits for the disk."""
    surveys: int = 0
    """Upper bound of extra reading passes over all tensors before the merging pass."""
    statistics: tuple[str, ...] = ()
    """Statistics of the models' activations or gradients that the method reads, e.g. `("gram",)`."""
    tasks: tuple[str, ...] = ()
    """What the method asks of tasks: any of `batches`, `labels`, `logits`, `loss`."""
    trains: bool = False
    """Whether parameters are learned by gradient descent."""
    random: bool = False
    """Whether the result depends on the seed."""
    ordered: bool = False
    """Whether the order of the models is meaningful (first is not last)."""
    output: Literal["weights", "adapter", "module", "predictor", "conditioned"] = "weights"
    """Weights of the same architecture, an adapter that changes the base, a module of a new architecture, a
    predictor over several models, or a task-conditioned model, which is another one for each task and must
    be told it."""
    laws: frozenset[Law] = frozenset()

    def __post_init__(self) -> None:
        for name, choices in _choices().items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}")
        _check_words(self, "statistics", "tasks")
        if len(self.scratch) != 2 or not all(0 <= copies < float("inf") for copies in self.scratch):
            raise ValueError(f"scratch={self.scratch!r} is no pair of numbers of copies: (a model, besides)")


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    """Name of a capability -> what it may be, where that is one of a few words."""
    hints = get_type_hints(Capabilities)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _check_words(record: Any, *names: str) -> None:
    """Raise where a tuple of words is but one string: `("a")` rather than `("a",)`."""
    for name in names:
        value = getattr(record, name)
        if isinstance(value, str):
            raise ValueError(f"{name}={value!r} is a string, not a tuple; write {name}=({value!r},)")


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    venue: str = ""
    arxiv: str = ""

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.venue, str(self.year)) if part)
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        return f"{self.authors.rstrip('.')}. {self.title}. {where}{arxiv}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which installed distribution a record comes from; filled in by the core, never by a plugin."""

    namespace: str
    distribution: str
    version: str
    module: str


_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Common part of all records.

    Args:
        name: Short name: lower-case letters, digits and underscores.
        target: `"module:Object"`, imported on first use.
        summary: One line for listings.
        tags: Words to filter and search by.
    """

    name: str
    target: str
    summary: str
    tags: tuple[str, ...] = ()
    origin: Origin | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"record name {self.name!r} must be lower-case letters, digits and underscores")
        module, _, attribute = self.target.partition(":")
        if not module or not attribute:
            raise ValueError(f"target {self.target!r} of record {self.name!r} must read 'module:Object'")
        _check_words(self, "tags")

    @property
    def full_name(self) -> str:
        """`namespace/name` once the core knows the namespace, else the short name."""
        return f"{self.origin.namespace}/{self.name}" if self.origin else self.name


@dataclass(frozen=True, kw_only=True)
class MethodRecord(Record):
    """A fusion method: `target` is a subclass of `TensorMethod` or `ModelMethod`."""

    capabilities: Capabilities = Capabilities()
    paper: Paper | None = None


@dataclass(frozen=True, kw_only=True)
class SourceRecord(Record):
    """A model source: `target` is a subclass of `ModelSource`."""


@dataclass(frozen=True, kw_only=True)
class TaskRecord(Record):
    """A task evaluator: `target` is a subclass of `Task`."""

    provides: tuple[str, ...] = ("evaluate",)
    """Any of `evaluate`, `batches`, `labels`, `logits`, `loss`."""
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StatisticRecord(Record):
    """A statistic of a model on data: `target` is a subclass of `Statistic`."""


@dataclass(frozen=True, kw_only=True)
class BuilderRecord(Record):
    """Rebuilds a saved non-standard module: `target` is a function `(BuildContext) -> nn.Module`."""


@dataclass(frozen=True, kw_only=True)
class ConfigRecord:
    """A package of YAML presets, put on the config search path.

    Args:
        package: Dotted name of the package whose directory holds `method/`, `modelpool/`, `taskpool/`
            and root configs.
        default: Root config that a bare `fb run` uses, if this plugin offers one.
    """

    package: str
    default: str | None = None
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class ReporterRecord(Record):
    """An extra report format: `target` is a function `(report: Report, directory: Path) -> Path`."""


@dataclass(frozen=True, kw_only=True)
class CommandRecord(Record):
    """An extra CLI command: `target` is a `click.Command`; `name` may use underscores for dashes."""


@dataclass(frozen=True, kw_only=True)
class ConverterRecord(Record):
    """Reads configs of another tool: `target` is a function `(text: str) -> Converted`."""


@dataclass(frozen=True, kw_only=True)
class CheckRecord(Record):
    """An extra check of `fb doctor`: `target` is a function `() -> Iterable[str]` yielding problems."""


def implements(record: Any):
    """Class decorator: tie an implementation to the record that declares it.

    >>> @implements(MethodRecord(name="mine", target="pkg.mine:Mine", summary="…"))
    ... class Mine: ...
    >>> Mine.record.name
    'mine'
    """

    def mark(cls):
        cls.record = record
        return cls

    return mark
