"""The Gram matrices of the gradients that come back to linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_merging.data_driven.gradients import drawn_label, log_probabilities, require_samples
from fb_merging.data_driven.records import GRADIENT_GRAM
from fusionbench_core import Batch, Statistic, frozen, implements

WIDEST = 16384
"""Outputs of a layer that has a matrix of its own; that of a vocabulary would take gigabytes."""


@implements(GRADIENT_GRAM)
class GradientGram(Statistic):
    r"""Mean of $g g^\top$ over samples, $g = \nabla_z \log p(y \mid x)$ for the outputs z of linear layers.

    For a weight of shape `(out, in)`: $\frac1n G^\top G$, shape `(out, out)`, where G has a row for each
    sample and token. With the Gram matrix of the inputs it makes the Kronecker-factored Fisher information
    (K-FAC). The label y is drawn from the model's own predictions, one a sample.

    Reference:
        Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
        ICML 2015, arXiv:1503.05671.
    """

    widest: int = Field(default=WIDEST, gt=0, description="layers with more outputs are left out")

    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a linear weight in the trunk's state dict -> its matrix, `(out, out)`.

        Raises:
            TaskError: if there are no samples, or no classes.
        """
        trunk = model.get_submodule("trunk")
        stored = trunk.state_dict().keys()
        sums: dict[str, Tensor] = {}
        handles = []
        device, seen = next(model.parameters()).device, 0
        for path, module in trunk.named_modules():
            name = f"{path}.weight".lstrip(".")
            if isinstance(module, nn.Linear) and name in stored and module.out_features <= self.widest:
                handles.append(module.register_forward_hook(partial(_watch, sums, name)))
        try:
            with frozen([model]):
                for batch in batches:
                    _backward(model, batch.to(device))
                    seen += len(batch)
        finally:
            for handle in handles:
                handle.remove()
        require_samples(seen, self.split)
        return {name: (total / seen).cpu() for name, total in sums.items()}


def _backward(model: nn.Module, batch: Batch) -> None:
    with torch.enable_grad():
        log_p = log_probabilities(model, batch.inputs)
        labels = _labels(log_p.detach().exp(), batch.indices).to(log_p.device)
        chosen = log_p.gather(1, labels[:, None]).sum()
    if chosen.requires_grad:
        chosen.backward()


def _labels(probabilities: Tensor, indices: Tensor) -> Tensor:
    return torch.tensor([drawn_label(p, int(index)) for p, index in zip(probabilities, indices)])


def _watch(
    sums: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor
) -> Tensor:
    # Parameters have no gradients of their own here: the graph begins at these outputs.
    output = output if output.requires_grad else output.detach().requires_grad_()
    output.register_hook(partial(_add, sums, name))
    return output


def _add(sums: dict[str, Tensor], name: str, grad: Tensor) -> None:
    rows = grad.detach().reshape(-1, grad.shape[-1])
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    matrix = rows.T @ rows
    sums[name] = sums[name].add_(matrix) if name in sums else matrix
