"""The Gram matrices of what goes into linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fb_merging.data_driven.records import GRAM
from fusionbench_core import Batch, Statistic, TaskError, implements


@implements(GRAM)
class Gram(Statistic):
    r"""Mean of $x x^\top$ over the inputs $x$ of every linear layer of the trunk.

    For a weight of shape `(out, in)`: $G = \frac1n X^\top X$, shape `(in, in)`, where the rows of $X$,
    shape `(n, in)`, are all vectors that went into the layer: one a sample and token.

    Notes:
        Where a batch holds an `attention_mask` of shape `(samples, tokens)` and a layer's input begins with
        these two dimensions, tokens that are masked out (padding) do not count.
        Layers that are never called as modules have no Gram matrix, for example the projections inside
        `nn.MultiheadAttention`.
        Matrices are accumulated in the dtype of the activations, in fp32 at least, and returned on the CPU.

    Reference:
        Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023,
        arXiv:2212.09849, section 3.2.
    """

    @torch.no_grad()
    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a linear weight in the trunk's state dict -> its matrix, `(in, in)`.

        Raises:
            TaskError: if there are no batches.
        """
        trunk = model.get_submodule("trunk")
        stored = trunk.state_dict().keys()
        weights = [name for name in linear_weights(trunk) if name in stored]
        device = next(model.parameters()).device
        found = input_grams(
            trunk, weights, (batch.to(device) for batch in batches), lambda batch: model(**batch.inputs)
        )
        if found is None:
            raise TaskError(
                "there are no samples to collect Gram matrices on",
                fix=f"check that the task has data in split {self.split!r}",
            )
        return found


def linear_weights(trunk: nn.Module) -> list[str]:
    """Names of the weights of all linear layers."""
    paths = [path for path, module in trunk.named_modules() if isinstance(module, nn.Linear)]
    return [f"{path}.weight".lstrip(".") for path in paths]


def input_grams(
    trunk: nn.Module, weights: Sequence[str], batches: Iterable[Batch], run: Callable[[Batch], Any]
) -> dict[str, Tensor] | None:
    """Name of a weight -> the Gram matrix of its layer's inputs; without those that are never called.

    Args:
        trunk: Where the layers are.
        weights: Names of weights of linear layers.
        batches: On the trunk's device.
        run: Calls the trunk on a batch.

    Returns:
        The matrices on the CPU; None if there are no batches.
    """
    sums = {name: _Sum() for name in weights}
    handles = []
    seen = 0
    try:
        for name, total in sums.items():
            module = trunk.get_submodule(name.removesuffix("weight").rstrip("."))
            handles.append(module.register_forward_pre_hook(partial(_observe, total)))
        for batch in batches:
            mask = batch.inputs.get("attention_mask")
            for total in sums.values():
                total.mask = None if mask is None else mask.bool()
            run(batch)
            seen += len(batch)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: total.mean() for name, total in sums.items()}
    return {name: matrix for name, matrix in means.items() if matrix is not None} if seen else None


class _Sum:
    """Running sum of $x x^\\top$ over the rows seen so far, and their number."""

    def __init__(self) -> None:
        self.count = 0
        self.mask: Tensor | None = None
        self._matrix: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        """Add inputs of shape `(…, in)`; rows outside the mask are left out if it fits the shape."""
        fits = self.mask is not None and inputs.ndim > 2 and inputs.shape[:2] == self.mask.shape
        rows = inputs[self.mask] if fits else inputs
        rows = rows.reshape(-1, inputs.shape[-1])
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        matrix = rows.T @ rows
        self._matrix = matrix if self._matrix is None else self._matrix.add_(matrix)
        self.count += len(rows)

    def mean(self) -> Tensor | None:
        """The mean, on the CPU; None if the layer was never called, or on padding only."""
        return (self._matrix / self.count).cpu() if self._matrix is not None and self.count else None


def _observe(total: _Sum, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    total.add(arguments[0])
