"""What methods that factorise weight matrices share: which tensors are matrices, and what the others get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import mean
from fusionbench_core import TensorGroup, TensorMethod

Excluded = Annotated[
    tuple[str, ...],
    Field(description="glob patterns of matrices to average like the other tensors, e.g. of embeddings"),
]

LeftAlone = Annotated[
    tuple[str, ...],
    Field(description="glob patterns of matrices to leave as they are, e.g. of embeddings"),
]


_BLOCK = 2**15
"""Entries added up at a time."""


def named(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the glob patterns fits a tensor's name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_matrix(group: TensorGroup, exclude: Sequence[str] = ()) -> bool:
    """Whether a tensor has two dimensions, both not empty, and a name that no pattern excludes."""
    return len(group.shape) == 2 and 0 not in group.shape and not named(group.name, exclude)


class MatrixMethod(TensorMethod):
    """A method that factorises matrices, and does something plain with all other tensors."""

    exclude: Excluded = ()

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        return matrix_scratch(super().scratch(name, shape, models), name, shape, models, self.exclude)

    def add_update(
        self, group: TensorGroup, combine: Callable[[list[Tensor]], Tensor], scaling_factor: float = 1.0
    ) -> Tensor:
        """The base plus the scaled update: `combine` of all task matrices, or the mean if it is no matrix.

        `combine` gives any floating dtype, and looks at no parameter but those of this method, at
        `scaling_factor` and `exclude` least of all: what it gave is used again for other values of these. It
        is not called where no model differs from the base, frozen layers and embeddings say: such a tensor is
        the base's.
        """
        base, deltas = group.base, group.deltas
        if not any(bool(delta.any()) for delta in deltas):
            return base
        if is_matrix(group, self.exclude):
            update = group.cached(
                self, deltas, lambda: combine(deltas).to(base.dtype), apart_from=("scaling_factor", "exclude")
            )
        else:
            update = mean(deltas)
        return torch.add(base, update, alpha=scaling_factor)


def matrix_scratch(
    declared: float, name: str, shape: tuple[int, ...], models: int, exclude: Sequence[str]
) -> float:
    """Copies that merging a tensor takes: as declared if it is factorised, else what a mean takes."""
    factorised = len(shape) == 2 and not named(name, exclude)
    return declared if factorised else models + 6


def wide_sum(matrices: Sequence[Tensor]) -> Tensor:
    """Their sum in fp64, so that its smallest singular values are not the rounding of the sum."""
    total = matrices[0].to(torch.float64, copy=True)
    # By blocks that stay in the processor's cache: their copies in fp64 then cost next to nothing.
    rows = max(1, _BLOCK // max(1, total.shape[1]))
    for start in range(0, total.shape[0], rows):
        part = total[start : start + rows]
        for matrix in matrices[1:]:
            part += matrix[start : start + rows].double()
    return total
