"""How large the inputs of linear layers are, feature by feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fb_merging.data_driven.inputs import means_of_model
from fb_merging.data_driven.records import ACTIVATIONS
from fusionbench_core import Batch, Statistic, implements


@implements(ACTIVATIONS)
class Activations(Statistic):
    r"""Mean square of every input feature of every linear layer of the trunk.

    For a weight of shape `(out, in)`: $\frac1n \sum_i x_{ij}^2$, shape `(in,)`, over all vectors that went
    into the layer: one a sample and token. It is the diagonal of `gram`, without the cost of a matrix.

    Notes:
        Padding, layers that are never called, and dtypes as for `gram`.

    Reference:
        Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024,
        arXiv:2306.11695, section 2.
    """

    @torch.no_grad()
    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a linear weight in the trunk's state dict -> its mean squares, `(in,)`.

        Raises:
            TaskError: if there are no batches.
        """
        return means_of_model(model, batches, lambda rows: rows.square().sum(0), self.split)
