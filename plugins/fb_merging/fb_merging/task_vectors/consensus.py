"""What methods with a consensus mask have in common."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.masks import agreement, tall_mask
from fb_merging.operations.per_model import Numbers, is_list, values_of
from fusionbench_core import Capabilities, Law, TensorGroup, TensorMethod


class ConsensusMethod(TensorMethod):
    """Drops those entries of a merged task vector which too few tasks use."""

    tall_lambda: Numbers = Field(
        default=0.4,
        description="λ_t: how much an update must outweigh the others' to count; one for all models, a list "
        "in config order, or model name -> number",
    )
    min_tasks: int = Field(default=2, ge=0, description="k: keep entries that at least so many tasks use")

    @property
    def capabilities(self) -> Capabilities:
        """The record's; a list goes by the order of the models."""
        if not is_list(self.tall_lambda):
            return self.record.capabilities
        laws = self.record.capabilities.laws - {Law.PERMUTATION}
        return dataclasses.replace(self.record.capabilities, ordered=True, laws=laws)

    def check(self, models: Sequence[str]) -> None:
        values_of(self.tall_lambda, models, "tall_lambda")

    @abstractmethod
    def merged_task_vector(self, group: TensorGroup) -> Tensor:
        """The multi-task vector; does not write to `group.deltas`."""

    def consensus(self, group: TensorGroup) -> Tensor:
        """The multi-task vector with 0 in place of entries that too few tasks use."""
        deltas, merged = list(group.deltas), self.merged_task_vector(group)
        lambdas = values_of(self.tall_lambda, group.names, "tall_lambda")
        masks = [tall_mask(delta, merged, value) for delta, value in zip(deltas, lambdas)]
        return torch.where(agreement(masks) >= self.min_tasks, merged, 0)
