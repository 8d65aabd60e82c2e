"""Means over what goes into linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core import Batch, TaskError

Total = Callable[[Tensor], Tensor]
"""Input vectors `(n, in)` of a layer, in fp32 at least -> the sum of something over them."""


def means_of_model(model: nn.Module, batches: Iterable[Batch], total: Total, split: str) -> dict[str, Tensor]:
    """The mean for every linear layer of a task model's trunk; see :func:`input_means`.

    Raises:
        TaskError: if there are no batches.
    """
    trunk = model.get_submodule("trunk")
    stored = trunk.state_dict().keys()
    weights = [name for name in linear_weights(trunk) if name in stored]
    device = next(model.parameters()).device
    found = input_means(
        trunk, weights, (batch.to(device) for batch in batches), lambda batch: model(**batch.inputs), total
    )
    if found is None:
        raise TaskError(
            "there are no samples to collect a statistic of inputs on",
            fix=f"check that the task has data in split {split!r}",
        )
    return found


def linear_weights(trunk: nn.Module) -> list[str]:
    """Names of the weights of all linear layers."""
    paths = [path for path, module in trunk.named_modules() if isinstance(module, nn.Linear)]
    return [f"{path}.weight".lstrip(".") for path in paths]


def input_means(
    trunk: nn.Module,
    weights: Sequence[str],
    batches: Iterable[Batch],
    run: Callable[[Batch], Any],
    total: Total,
) -> dict[str, Tensor] | None:
    """Name of a weight -> the mean over its layer's inputs; without layers that are never called.

    Where a batch holds an `attention_mask` of shape `(samples, tokens)` and a layer's input begins with these
    two dimensions, tokens that are masked out (padding) do not count.

    Args:
        trunk: Where the layers are.
        weights: Names of weights of linear layers.
        batches: On the trunk's device.
        run: Calls the trunk on a batch.
        total: What is added up.

    Returns:
        The means on the CPU; None if there are no batches.
    """
    sums = {name: _Sum(total) for name in weights}
    handles = []
    seen = 0
    try:
        for name, each in sums.items():
            module = trunk.get_submodule(name.removesuffix("weight").rstrip("."))
            handles.append(module.register_forward_pre_hook(partial(_observe, each)))
        for batch in batches:
            mask = batch.inputs.get("attention_mask")
            for each in sums.values():
                each.mask = None if mask is None else mask.bool()
            run(batch)
            seen += len(batch)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: each.mean() for name, each in sums.items()}
    return {name: mean for name, mean in means.items() if mean is not None} if seen else None


class _Sum:
    """Running sum over the rows seen so far, and their number."""

    def __init__(self, total: Total) -> None:
        self.count = 0
        self.mask: Tensor | None = None
        self._total = total
        self._sum: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        """Add inputs of shape `(…, in)`; rows outside the mask are left out if it fits the shape."""
        fits = self.mask is not None and inputs.ndim > 2 and inputs.shape[:2] == self.mask.shape
        rows = inputs[self.mask] if fits else inputs
        rows = rows.reshape(-1, inputs.shape[-1])
        part = self._total(rows.to(torch.promote_types(rows.dtype, torch.float32)))
        self._sum = part if self._sum is None else self._sum.add_(part)
        self.count += len(rows)

    def mean(self) -> Tensor | None:
        """The mean, on the CPU; None if the layer was never called, or on padding only."""
        return (self._sum / self.count).cpu() if self._sum is not None and self.count else None


def _observe(total: _Sum, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    total.add(arguments[0])
