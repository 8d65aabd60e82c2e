"""Statistics that fit the tensor they are for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionbench_core import MethodError, TensorGroup


def statistic_of(group: TensorGroup, method: str, name: str, shape: Sequence[int | None]) -> list[Tensor]:
    """One value of a statistic a model, or none if it says nothing about this tensor.

    Args:
        group: The tensors.
        method: Name of the method, for messages.
        name: Name of the statistic.
        shape: The shape it must have.

    Raises:
        MethodError: if it was not collected, is missing for some of the models, has another shape, or NaN.
    """
    values = group.statistics.get(name)
    if values is None:
        raise MethodError(
            f"{method}: there is no statistic `{name}`",
            tensor=group.name,
            fix=f"run it with a task pool, so that the statistic `{name}` is collected first",
        )
    found = [value for value in values if value is not None]
    if not found:
        return []
    wrong = [
        model
        for model, value in zip(group.names, values)
        if value is None or tuple(value.shape) != tuple(shape) or not torch.isfinite(value).all()
    ]
    if wrong:
        raise MethodError(
            f"{method}: the statistic `{name}` does not fit the tensor",
            tensor=group.name,
            models=", ".join(wrong),
            why=f"a tensor of shape {list(group.shape)} needs a finite {tuple(shape)} from every model",
            fix=f"collect the statistic `{name}` again, on these models",
        )
    return found
