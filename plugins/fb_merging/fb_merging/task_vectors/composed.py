"""Named compositions of sparsification and combination."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import Capabilities, Survey, TensorGroup, TensorMethod


class ComposedMethod(TensorMethod):
    """A method that is a `TaskVectorMerging` with some choices made."""

    @abstractmethod
    def compose(self) -> TaskVectorMerging:
        """The composition that this method stands for."""

    @cached_property
    def composition(self) -> TaskVectorMerging:
        return self.compose()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the composition, with the memory that this one was found to take."""
        scratch = self.record.capabilities.scratch
        return dataclasses.replace(self.composition.capabilities, scratch=scratch)

    def check(self, models: Sequence[str]) -> None:
        self.composition.check(models)

    def survey(self) -> Survey | None:
        return self.composition.survey()

    def merge(self, group: TensorGroup) -> Tensor:
        return self.composition.merge(group)
