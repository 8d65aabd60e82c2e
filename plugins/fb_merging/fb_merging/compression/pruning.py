"""What methods that set entries of matrices to 0 have in common."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from fb_merging.operations.matrices import LeftAlone
from fb_merging.operations.sparsify import count_kept
from fusionbench_core import Capabilities, TensorMethod


class Pruning(TensorMethod):
    """Keeps the best entries of each row, of the whole matrix, or of each block of a row."""

    density: float = Field(default=0.5, gt=0, le=1, description="fraction of the entries kept")
    window: Literal["row", "tensor"] = Field(
        default="row", description="keep this fraction of each row (output unit), or of the whole matrix"
    )
    n: int | None = Field(default=None, ge=1, description="n:m sparsity: entries kept in each block of m")
    m: int | None = Field(default=None, ge=1, description="n:m sparsity: entries of a block along a row")
    exclude: LeftAlone = ()

    @model_validator(mode="after")
    def _blocks_are_whole(self) -> Pruning:
        if (self.n is None) != (self.m is None):
            raise ValueError("n:m sparsity takes both n and m")
        if self.n is not None and self.m is not None:
            if self.n > self.m:
                raise ValueError(f"n ({self.n}) of m ({self.m}) entries cannot be kept")
            fields = type(self).model_fields
            if any(getattr(self, name) != fields[name].default for name in ("density", "window")):
                raise ValueError("n:m sparsity says how much is kept where: leave out density and window")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's; a whole matrix must be seen at once to rank all of its entries."""
        locality = "tensor" if self.window == "tensor" else "row"
        return dataclasses.replace(self.record.capabilities, locality=locality)

    def prune(self, matrix: Tensor, score: Tensor) -> Tensor:
        """`matrix` with 0 in place of all entries but those of highest score, by this method's parameters."""
        rows = len(matrix) if self.window == "row" else 1
        values, scores = matrix.reshape(rows, -1), score.reshape(rows, -1)
        m = self.m or values.shape[1]
        n = self.n or count_kept(self.density, m)
        return keep_best(values, scores, n, m).view(matrix.shape)


def keep_best(values: Tensor, scores: Tensor, n: int, m: int) -> Tensor:
    """0 in place of all but the `n` entries of highest score of each `m` consecutive ones of a row.

    A row's last block may be shorter, and keeps as many as `n`. Of equal scores the first ones are kept.

    Args:
        values: `(rows, columns)`.
        scores: `(rows, columns)`.
    """
    rows, columns = values.shape
    blocks = functional.pad(scores, (0, -columns % m), value=-torch.inf).view(rows, -1, m)
    order = blocks.argsort(dim=-1, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, order, True)
    return torch.where(kept.view(rows, -1)[:, :columns], values, 0)
