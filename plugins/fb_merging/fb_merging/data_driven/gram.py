"""The Gram matrices of what goes into linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fb_merging.data_driven.inputs import means_of_model
from fb_merging.data_driven.records import GRAM
from fusionbench_core import Batch, Statistic, implements


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
        return means_of_model(model, batches, outer, self.split)


def outer(rows: Tensor) -> Tensor:
    """Sum of $x x^\\top$ over rows `(n, in)`: `(in, in)`."""
    return rows.T @ rows
