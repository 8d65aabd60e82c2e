"""Parameters of methods that keep the leading singular triplets of task matrices."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from fb_merging.operations.svd import (
    Factorization,
    Factors,
    Oversampling,
    PowerIterations,
    leading_triplets,
    rank_holding,
)


class OfRank(BaseModel):
    """So many singular triplets of each matrix, or as many as hold a fraction of its energy."""

    rank: int | None = Field(default=None, ge=1, description="k: singular triplets kept; null for 16")
    energy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="fraction of the squared singular values kept, instead of `rank`",
    )
    factorization: Factorization = "exact"
    oversampling: Oversampling = 10
    power_iterations: PowerIterations = 2

    @model_validator(mode="after")
    def _fits_together(self) -> OfRank:
        if self.rank is not None and self.energy is not None:
            raise ValueError("give rank or energy, not both")
        if self.energy is not None and self.factorization == "randomized":
            raise ValueError("energy needs all singular values: factorization must be exact")
        return self

    def leading(self, matrix: Tensor, draw: Callable[[], Tensor]) -> Factors:
        """The triplets that are kept of a matrix.

        Args:
            matrix: `(m, n)`.
            draw: Gives random numbers in [0, 1), `(m, n)`; called only for a random sketch.
        """
        wanted = min(matrix.shape) if self.energy is not None else self.rank or 16
        found = leading_triplets(matrix, wanted, self, draw)
        return found if self.energy is None else found.top(rank_holding(found.s, self.energy))
