"""How far our result is from a peer's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusionbench_core import fuse
from parity.case import Case
from parity.models import Model
from parity.modules import module_of


def merged(case: Case, models: Mapping[str, Model], seed: int = 0) -> Model:
    """What ours makes of a case."""
    given = {
        model: {name: x for name, x in models[model].items() if name not in case.without}
        for model in ("base", *case.models)
    }
    base = given["base"] if case.base else None
    chosen = {model: given[model] for model in case.models}
    if case.tasks:
        modules = {model: module_of(state) for model, state in chosen.items()}
        fused = fuse(case.ours, modules, module_of(given["base"]), seed=seed, **case.our_parameters)
        states = [fused.for_task(model).state_dict() for model in case.models]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}
    # Ours asks what to take where integers differ; a peer that averages them is told in `case.why`.
    engine = {"integers": "base" if case.base else "first"}
    return fuse(case.ours, chosen, base, seed=seed, engine=engine, **case.our_parameters)


def differences(ours: Model, theirs: Model, base: Model) -> dict[str, float]:
    """Tensor -> the largest difference of an entry, relative to the largest entry of the base or theirs.

    NaN where theirs is not finite.
    """
    return {name: _difference(ours[name], theirs[name], base[name]) for name in ours if name in theirs}


def _difference(ours: Tensor, theirs: Tensor, base: Tensor) -> float:
    x, y, z = (tensor.double() for tensor in (ours, theirs, base))
    if not torch.isfinite(y).all():
        return math.nan
    return float((x - y).abs().max() / max(y.abs().max(), z.abs().max()))


def standard_errors(ours: Sequence[Model], theirs: Sequence[Model]) -> dict[str, float]:
    """Tensor -> the largest difference between the means of many draws, in its standard errors."""
    return {
        name: _standard_errors(*(_stacked(draws, name) for draws in (ours, theirs)))
        for name in ours[0]
        if name in theirs[0] and ours[0][name].is_floating_point()
    }


def _stacked(draws: Sequence[Model], name: str) -> Tensor:
    return torch.stack([draw[name].double() for draw in draws])


def _standard_errors(ours: Tensor, theirs: Tensor) -> float:
    error = ((ours.var(0) + theirs.var(0)) / len(ours)).sqrt()
    apart = (ours.mean(0) - theirs.mean(0)).abs()
    # Entries that are never dropped differ by rounding alone.
    return float(torch.where(apart < 1e-6, 0, apart / error).max())
