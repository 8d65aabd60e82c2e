"""How the engine runs: threads, memory, dtypes and rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from fusionbench_core.processors import available_cpus


@dataclass(frozen=True)
class EngineOptions:
    """Settings of the engine. None but the dtypes, the device and the rule for integers changes a result.

    Attributes:
        threads: Worker threads; each computes with one intra-op thread.
        memory_budget: Bytes of anonymous memory that a fusion may take; None: no bound.
        budget_is_guess: Whether nobody asked for that budget. Methods that hold whole models are not
            refused then, as what they say of their memory is an estimate.
        cache_size: Bytes on disk that tensors which are slow to compute may take, to be used again; 0: none.
        dtype: Floating dtype of the output; None keeps each tensor's.
        accumulate: Least dtype of the arithmetic.
        max_shard_size: Bytes of one output file at most.
        check_finite: Refuse NaN and Inf in inputs and results.
        integers: What to do with integer and boolean tensors that differ between models: `error`, or
            take the `base`'s, the `first` model's, or the entry-wise `max`.
        device: Where methods compute that can compute anywhere.
    """

    threads: int = field(default_factory=available_cpus)
    memory_budget: int | None = None
    budget_is_guess: bool = False
    cache_size: int = 0
    dtype: torch.dtype | None = None
    accumulate: torch.dtype = torch.float32
    max_shard_size: int = 5 * 10**9
    check_finite: bool = True
    integers: Literal["error", "base", "first", "max"] = "error"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
