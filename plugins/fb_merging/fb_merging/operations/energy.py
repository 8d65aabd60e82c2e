"""Squared lengths of whole task vectors, found by streaming over them once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fb_merging.operations.vectors import dot
from fusionbench_core import Survey, TensorGroup


@dataclass(frozen=True)
class Energy(Survey):
    """$\\|\\theta_t - \\theta_0\\|^2$ over all tensors, one a model in the order of the group's models."""

    def observe(self, group: TensorGroup) -> Tensor:
        """fp64 `(models,)`."""
        return torch.tensor([dot(delta, delta) for delta in group.deltas], dtype=torch.float64)

    def advance(self, total: Tensor | None) -> list[float]:
        return [] if total is None else total.tolist()
