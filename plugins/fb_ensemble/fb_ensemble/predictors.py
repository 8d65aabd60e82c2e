"""How an ensemble combines the outputs of its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_ensemble.space import Space
from fusionbench_core import Predictor


class MeanPredictor(Predictor):
    r"""A weighted sum of outputs $z_t$, as they are or as probabilities over the last dimension.

    $$y = \sum_t w_t z_t \qquad\text{or}\qquad y = \log \sum_t w_t \,\mathrm{softmax}(z_t)$$

    The second gives logarithms, so that softmax of the result is the mean probability whatever reads
    it next; it is computed without leaving log space.

    Args:
        members: Name -> module.
        weights: One a member, in that order.
        space: What is summed.
    """

    def __init__(
        self, members: Mapping[str, nn.Module], weights: Sequence[float], space: Space = "logits"
    ) -> None:
        super().__init__(members)
        self.weights = tuple(weights)
        self.space = space

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …, classes)` to `(…, classes)`; half precision is summed in fp32."""
        wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        weights = torch.tensor(self.weights, dtype=wide.dtype, device=wide.device)
        weights = weights.view(-1, *[1] * (outputs.ndim - 1))
        if self.space == "probabilities":
            combined = torch.logsumexp(wide.log_softmax(-1) + weights.log(), dim=0)
        else:
            combined = (wide * weights).sum(0)
        return combined.type_as(outputs)

    def extra_repr(self) -> str:
        return f"names={self.names}, weights={self.weights}, space={self.space!r}"


class MaxPredictor(Predictor):
    """The largest output, entry by entry."""

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …)` to `(…)`."""
        return outputs.amax(0)

    def extra_repr(self) -> str:
        return f"names={self.names}"
