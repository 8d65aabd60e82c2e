"""Where outputs are averaged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fusionbench_core import Law

Space = Annotated[
    Literal["logits", "probabilities"],
    Field(
        description="average `logits` as they are, or `probabilities` (softmax over the last dimension); "
        "the result of the latter is the logarithm of the mean"
    ),
]

LAWS_OF_PROBABILITIES = frozenset({Law.PERMUTATION})
"""Laws of averaged probabilities: their logarithms are the members' logits up to a constant only."""
