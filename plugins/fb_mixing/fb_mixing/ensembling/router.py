"""The router that says how much of each task vector a sample takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def router_entries(in_features: int, coefficients: int, *, layers: int, hidden: int) -> int:
    """How many parameters a :class:`Router` with these arguments has."""
    if layers == 2:
        return coefficients * (hidden + 1) + hidden * (in_features + 1)
    return coefficients * (in_features * layers + 1)


class Router(nn.Module):
    r"""Coefficients of a sample: those of its tokens, averaged.

    $$r(x) = \frac1L \sum_{i=1}^{L} f(x_i), \qquad
      f_0 = b, \quad f_1(x) = W x + b, \quad f_2(x) = W \,\mathrm{relu}(W' x + b') + b$$

    Attributes:
        weight: `(coefficients, hidden or in)`, $W$; None without layers.
        bias: `(coefficients,)`, $b$.
        hidden_weight: `(hidden, in)`, $W'$; None unless there are two layers.
        hidden_bias: `(hidden,)`, $b'$; None unless there are two layers.

    Args:
        in_features: Size of the last dimension of the input.
        coefficients: Size of the last dimension of the output.
        layers: 0, 1 or 2.
        hidden: Width between two layers.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        coefficients: int,
        *,
        layers: int,
        hidden: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers

        def parameter(*shape: int, wanted: bool = True) -> Any:
            return nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False) if wanted else None

        self.weight = parameter(coefficients, hidden if layers == 2 else in_features, wanted=layers > 0)
        self.bias = parameter(coefficients)
        self.hidden_weight = parameter(hidden, in_features, wanted=layers == 2)
        self.hidden_bias = parameter(hidden, wanted=layers == 2)

    def twin(self) -> Router:
        """Another router with the very same parameters."""
        twin = Router(1, 1, layers=self.layers, hidden=1)
        for name, parameter in self.named_parameters():
            setattr(twin, name, parameter)
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """`(n, ..., in)` to `(n, coefficients)`, or `(1, coefficients)` without layers."""
        if self.weight is None:
            return self.bias[None]
        if self.hidden_weight is not None:
            x = F.relu(F.linear(x, self.hidden_weight, self.hidden_bias))
        coefficients = F.linear(x, self.weight, self.bias)
        return coefficients.flatten(1, -2).mean(1) if coefficients.ndim > 2 else coefficients
