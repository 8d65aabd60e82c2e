"""What a task is: batches of data, a head for a trunk, a loss, and an evaluation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fusionbench_core.records import TaskRecord
from fusionbench_core.tasks.metric import KNOWN, Metric

if TYPE_CHECKING:
    from fusionbench_core.tasks.result import TaskResult

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Inputs of a model, as its forward takes them, and labels if they were asked for.

    Attributes:
        inputs: Keyword arguments of the task model: name -> tensor with leading dimension n.
        labels: `(n,)`, of sequences `(n, positions)`, or None.
        indices: `(n,)`: positions of the samples in their split.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device) -> Batch:
        """This batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(inputs, None if self.labels is None else self.labels.to(device), self.indices)


@dataclass(frozen=True)
class TaskCard:
    """Facts about a task's data, for the report."""

    title: str
    version: int
    source: str
    licence: str
    splits: Mapping[str, int]
    labels: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class EvalContext:
    """How to evaluate.

    Attributes:
        split: Which split to measure on.
        limit: At most so many samples, the first ones; None for all.
        batch_size: Samples a batch.
        device: Where to compute.
        on_progress: Called with (samples done, samples in all).
    """

    split: Split = "test"
    limit: int | None = None
    batch_size: int = 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_progress: Callable[[int, int], None] = lambda done, total: None


class Task(BaseModel):
    """A task is its validated parameters. Versioned: what it measures never changes under its name.

    Adaptive methods use :meth:`attach`, :meth:`batches` and :meth:`loss` and know nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: ClassVar[TaskRecord]

    name: str = Field(description="name of the task in reports; the pool fills it in")

    @classmethod
    def example(cls) -> Mapping[str, Any] | None:
        """Parameters for the conformance kit, over data that the plugin ships. None: there are none."""
        return None

    @classmethod
    def example_trunk(cls) -> nn.Module:
        """A small trunk that the task of :meth:`example` can be attached to, the same at every call.

        Raises:
            NotImplementedError: if the author gives none.
        """
        raise NotImplementedError

    @abstractmethod
    def card(self) -> TaskCard:
        """Facts about the data."""

    def metrics(self) -> Mapping[str, Metric]:
        """What the numbers of a result mean; of the record's metrics, `accuracy` and `loss` are known."""
        return {name: KNOWN[name] for name in self.record.metrics if name in KNOWN}

    @abstractmethod
    def attach(self, trunk: nn.Module) -> nn.Module:
        """`trunk` with this task's head: a module whose forward takes a batch's inputs and gives
        logits `(n, classes)`, or `(n, positions, classes)`. The trunk stays reachable as attribute `trunk`
        and is not copied.
        """

    @abstractmethod
    def batches(
        self,
        split: Split,
        *,
        labelled: bool,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        """Batches of a split, once through.

        Args:
            split: Which split.
            labelled: Without, batches carry no labels.
            limit: At most so many samples.
            seed: Shuffle with this seed; None keeps the split's order.
            batch_size: Samples a batch; the last may be smaller.
        """

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of a batch, a scalar."""

    @abstractmethod
    def evaluate(self, model: nn.Module, context: EvalContext) -> TaskResult:
        """Measure an attached model. Its mode, gradients and parameters are as before afterwards."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides a result: version, parameters, data."""
