"""What a fusion method is: its validated parameters, and a pure function of the models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from torch import Tensor

from fusionbench_core.records import Capabilities, MethodRecord

if TYPE_CHECKING:
    from fusionbench_core.methods.fused import Fused
    from fusionbench_core.methods.group import TensorGroup
    from fusionbench_core.methods.job import FusionJob
    from fusionbench_core.methods.survey import Survey
    from fusionbench_core.pools.pool import ModelPool


RESERVED = frozenset(
    {"name", "models", "base", "output", "source", "tasks", "scope", "heads", "seed", "engine"}
)
"""Names that no parameter of a method can have."""


class Method(BaseModel):
    """A method is its parameters: frozen, validated when built, equal by value.

    Subclass :class:`TensorMethod` or :class:`ModelMethod`, never this. Declare parameters as fields
    with `Field(default, description=…, gt=…)`; unknown ones are rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    record: ClassVar[MethodRecord]

    example_architecture: ClassVar[Literal["mlp", "mixtures"]] = "mlp"
    """What the conformance kit's plainest models are made of: linear layers, or `mixtures` of experts for
    methods that are about these and may refuse all others."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        if taken := RESERVED.intersection(cls.model_fields):
            raise TypeError(
                f"{cls.__name__}: no parameter can be called {', '.join(sorted(taken))}: `fuse` and configs "
                "have arguments of these names, and the method would never see them"
            )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where none is meant: pydantic would take them for 1 and 0."""
        if isinstance(value, bool) and not _takes_truth(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"{str(value).lower()} is no value for this parameter")
        return value

    @property
    def capabilities(self) -> Capabilities:
        """What this method, with these parameters, needs and promises; the record's unless overridden."""
        return self.record.capabilities

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """Parameters that suit a small pool of these models; the conformance kit checks with them.

        For methods whose defaults do not fit every pool, or would train for long.
        """
        return {}

    def check(self, models: Sequence[str]) -> None:
        """Check parameters against the models' names (config order), before any weight is read.

        Raises:
            ConfigError: if they do not fit, e.g. a list of weights of another length.
        """

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        """Statistic name -> its parameters; by default all the capabilities name, as they come."""
        return {name: {} for name in self.capabilities.statistics}

    def __hash__(self) -> int:
        # pydantic's own fails for parameters that are lists or mappings.
        return hash((type(self), *(_hashable(getattr(self, name)) for name in type(self).model_fields)))


class TensorMethod(Method):
    """The common case: each output tensor is a pure function of the models' tensors of that name.

    The engine streams: it calls :meth:`merge` once for each group, from several threads, in any order.
    By the declared locality a group is a run of entries (`element`), of whole rows (`row`), or the
    whole tensor (`tensor`).
    """

    @abstractmethod
    def merge(self, group: TensorGroup) -> Tensor:
        """The merged values, same shape as each of `group.models`, any floating dtype."""

    def survey(self) -> Survey | None:
        """First state of a survey over all tensors, whose result `merge` finds in `group.survey`.

        For thresholds, norms and other quantities that need the whole model. None: no survey.
        """
        return None

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        """Upper bound of the memory that merging one piece of a tensor takes, in copies of that piece.

        The plan and the memory budget rest on it, and the conformance kit measures it (FM-409). By default it
        is what the capabilities declare; override it where only some tensors need that much.

        Args:
            name: Name of the tensor.
            shape: Shape of the whole tensor.
            models: How many models there are, the base not counted.
        """
        each, besides = self.capabilities.scratch
        return each * models + besides

    def reference(self, group: TensorGroup) -> Tensor:
        """The same values as :meth:`merge` by the plainest formula there is, in fp64; optional.

        The conformance kit compares the two (FM-221), with the same group, survey included.

        Raises:
            NotImplementedError: if the author gives none.
        """
        raise NotImplementedError


class ModelMethod(Method):
    """A method that needs whole models: it learns, or builds a new architecture."""

    @abstractmethod
    def fuse(self, job: FusionJob) -> Fused:
        """Fuse the models of `job.pool`."""

    def memory(self, pool: ModelPool) -> int:
        """Bytes that fusing, and what comes out of it, hold in memory at most, as far as headers tell.

        The plan states it. Activations, and what the allocator wastes, come on top. By default: the base and
        all models, live.
        """
        base = pool.live_bytes() if pool.base else 0
        return base + sum(pool.live_bytes(name) for name in pool)


def _hashable(value: Any) -> Any:
    """A stand-in that can be hashed, equal where the values are."""
    if isinstance(value, BaseModel):
        return _hashable({name: getattr(value, name) for name in type(value).model_fields})
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(each)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(each) for each in value)
    return frozenset(value) if isinstance(value, set) else value


def _takes_truth(annotation: Any) -> bool:
    """Whether values of a type may be true or false."""
    if annotation in (bool, Any, object) or isinstance(annotation, bool):
        return True
    return any(map(_takes_truth, get_args(annotation)))
