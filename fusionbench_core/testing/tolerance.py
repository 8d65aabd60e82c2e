"""When two results count as equal: a bound that scales with the output's precision and magnitude."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fusionbench_core.testing.check import Violation

State = Mapping[str, Tensor]


def bound(dtype: torch.dtype, inputs: Iterable[Tensor], k: float = 4.0) -> float:
    """`k * eps(dtype) * max|inputs| * (1 + sqrt(N))`, over N inputs; 0 for integers and booleans.

    A multiple of the spacing of numbers as large as the inputs: sums over N models round N times, and
    the errors add up like a random walk.
    """
    if not dtype.is_floating_point:
        return 0.0
    inputs = list(inputs)
    largest = max((float(t.detach().double().abs().max()) for t in inputs if t.numel()), default=0.0)
    return k * torch.finfo(dtype).eps * largest * (1 + math.sqrt(len(inputs)))


def deviation(found: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference, in float64; infinite where one of them is NaN."""
    if not found.numel():
        return 0.0
    largest = float((found.detach().double() - wanted.detach().double()).abs().max())
    return math.inf if math.isnan(largest) else largest


def assert_close(
    found: State,
    wanted: State,
    inputs: Iterable[State],
    what: str,
    *,
    k: float = 4.0,
    reproduce: str = "",
    false_declaration: bool = False,
) -> float:
    """Compare all tensors of `wanted`; gives the largest deviation as a share of its bound.

    Args:
        inputs: The states that went in; they set the magnitude.
        what: What is wrong where they differ.

    Raises:
        Violation: naming the tensor that is furthest out.
    """
    inputs = list(inputs)
    worst, share = "", 0.0
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            raise Violation(f"{what}: {name} is missing or has another shape", reproduce=reproduce)
        allowed = bound(found[name].dtype, [state[name] for state in inputs if name in state], k)
        off = deviation(found[name], tensor)
        ratio = off / allowed if allowed else (math.inf if off else 0.0)
        if ratio > share:
            worst, share = name, ratio
    if share > 1:
        allowed = bound(found[worst].dtype, [state[worst] for state in inputs if worst in state], k)
        raise Violation(
            f"{what}: {worst} is off",
            measured=f"{deviation(found[worst], wanted[worst]):.3g}",
            bound=f"{allowed:.3g}",
            reproduce=reproduce,
            false_declaration=false_declaration,
        )
    return share


def same_bits(found: State, wanted: State) -> str | None:
    """Name of the first tensor whose bits, dtype or presence differ; None if all agree."""
    for name in {**wanted, **found}:
        if name not in found or name not in wanted:
            return name
        a, b = found[name], wanted[name]
        if a.dtype != b.dtype or a.shape != b.shape:
            return name
        if not torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        ):
            return name
    return None
