"""Integer and boolean tensors, which have no mean: they agree, or a rule says whose is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.dtypes import dtype_name
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.errors import IncompatibleModels

CHEAP = 1 << 16
"""Entries of a tensor that is small enough to be compared while planning."""
_SHOWN = 12


def check_integers(
    steps: Iterable[PlanStep], models: Mapping[str, Checkpoint], base: Checkpoint | None
) -> None:
    """Compare all small integer tensors; larger ones are compared while they are merged.

    Raises:
        IncompatibleModels: naming every tensor that differs, and in which models.
    """
    found: dict[str, list[str]] = {}
    steps = [step for step in steps if step.action == "equal" and step.info.numel <= CHEAP]
    for step in steps:
        each = {model: c.tensor(step.name).to(step.info.dtype) for model, c in models.items()}
        wanted = next(iter(each.values())) if base is None else base.tensor(step.name).to(step.info.dtype)
        differing = [model for model, value in each.items() if not torch.equal(wanted, value)]
        if differing:
            found[f"{dtype_name(step.info.dtype)} tensor {step.name}"] = differing
    if found:
        raise differs(found)


def differs(tensors: Mapping[str, list[str]]) -> IncompatibleModels:
    """What to tell the user about tensors that differ.

    Args:
        tensors: Dtype and name -> the models in which it is another one.
    """
    models = ", ".join(dict.fromkeys(model for each in tensors.values() for model in each))
    why = "averaging integers or booleans (counters, position ids, masks) has no meaning"
    fix = "say what to take: engine.integers=base, first or max"
    if len(tensors) == 1:
        return IncompatibleModels(
            f"{next(iter(tensors))} differs between the models", models=models, why=why, fix=fix
        )
    lines = [f"{name}: {', '.join(each)}" for name, each in tensors.items()]
    more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return IncompatibleModels(
        f"{len(tensors)} integer tensors differ between the models",
        tensors="\n".join([*lines[:_SHOWN], *more]),
        why=why,
        fix=fix,
    )
