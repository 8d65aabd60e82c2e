"""The contract of statistics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fusionbench_core.records import StatisticRecord
from fusionbench_core.tasks.task import Batch, Split


class Statistic(BaseModel):
    """A statistic of a task model on a few batches, one tensor for each weight it says something about.

    It is its validated parameters; they, the model's content and the task's fingerprint key the cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: ClassVar[StatisticRecord]

    of_base: ClassVar[bool] = False
    """Whether it is a statistic of the base on each model's data, not of the models."""

    samples: int = Field(default=256, gt=0, description="number of samples it is collected on")
    batch_size: int = Field(default=32, gt=0, description="samples a batch")
    split: Split = Field(default="train", description="split the samples come from")

    @property
    def labelled(self) -> bool:
        """Whether it is collected with labels; methods that ask for it declare their need of labels."""
        return False

    @abstractmethod
    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a tensor in the *trunk's* state dict -> the statistic for it.

        Args:
            model: A task model: trunk (attribute `trunk`) with its head, in eval mode.
            batches: Batches, with labels if `labelled` says so.
        """
