"""Modules whose weights are put together for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fb_mixing.ensembling.router import Router


class EnsembledLinear(nn.Module):
    r"""A linear layer with another weight for each sample: the base's plus updates by its coefficients.

    $$y = (W_0 + \sum_t r_t \Delta_t)\, x + b_0 + \sum_t r_t \delta_t$$

    The updates are whole matrices with their biases, or a few entries of each, or the rank-one matrices
    $u_j v_j^\top$ without biases. The weights of a sample are put together where it has tokens enough;
    otherwise the outputs of the updates are added up.

    Attributes:
        coefficients: `(n, count)`, r of the samples that are coming; set by :class:`WeightEnsembling`.
        weight: `(out, in)`, $W_0$.
        bias: `(out,)`, $b_0$; None without bias.
        delta: `(count, out, in)`; None where factored or sparse.
        delta_bias: `(count, out)`; None where factored or without bias.
        values: `(count, kept)`, entries of sparse updates; None otherwise.
        positions: `(count, kept)` int32, where they are in a flattened matrix; None where there are none.
        up: `(out, count)`, $u$; None where whole.
        down: `(count, in)`, $v$; None where whole.

    Args:
        in_features: Size of the last dimension of the input.
        out_features: Size of the last dimension of the output.
        count: Number of updates.
        rank_one: Whether the updates are rank-one matrices.
        kept: How many entries of each update are held; None for whole ones.
        bias: Whether there are biases.
        dtype: Type of the parameters.
    """

    coefficients: Tensor | None
    positions: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        count: int,
        rank_one: bool = False,
        kept: int | None = None,
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.coefficients = None
        self.shape = in_features, out_features

        def parameter(*shape: int, wanted: bool = True) -> Any:
            return nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False) if wanted else None

        self.weight = parameter(out_features, in_features)
        self.bias = parameter(out_features, wanted=bias)
        self.delta = parameter(count, out_features, in_features, wanted=not rank_one and kept is None)
        self.delta_bias = parameter(count, out_features, wanted=bias and not rank_one)
        self.values = parameter(count, kept or 0, wanted=kept is not None)
        places = None if kept is None else torch.zeros(count, kept, dtype=torch.int32)
        self.register_buffer("positions", places)
        self.up = parameter(out_features, count, wanted=rank_one)
        self.down = parameter(count, in_features, wanted=rank_one)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, ..., in)` to `(n, ..., out)`."""
        if self.coefficients is None:
            return F.linear(x, self.weight, self.bias)
        gates = self.coefficients.to(x.dtype)
        tokens = x[:, None] if x.ndim == 2 else x.flatten(1, -2)
        if self.up is not None:
            y = self._rank_one(tokens, gates)
        elif self.values is not None:
            y = self._sparse(tokens, gates)
        elif len(gates) == 1 or _fewer_products(tokens.shape[1], gates.shape[1]):
            y = self._put_together(tokens, gates)
        else:
            y = self._added_up(tokens, gates)
        return y.reshape(*x.shape[:-1], -1)

    def _rank_one(self, tokens: Tensor, gates: Tensor) -> Tensor:
        scaled = gates[:, None] * F.linear(tokens, self.down)
        return F.linear(tokens, self.weight, self.bias) + F.linear(scaled, self.up)

    def _sparse(self, tokens: Tensor, gates: Tensor) -> Tensor:
        # One sample's weights at a time: nothing else here is as large.
        assert self.positions is not None
        places, rows = self.positions.flatten(), []
        for sample, gate in zip(tokens, gates.expand(len(tokens), -1)):
            entries = (gate[:, None] * self.values).flatten()
            weight = self.weight.flatten().index_add(0, places, entries).view_as(self.weight)
            bias = None if self.bias is None else self.bias + gate @ self.delta_bias
            rows.append(F.linear(sample, weight, bias))
        return torch.stack(rows) if rows else F.linear(tokens, self.weight, self.bias)

    def _put_together(self, tokens: Tensor, gates: Tensor) -> Tensor:
        weight = self.weight + torch.tensordot(gates, self.delta, 1)
        y = tokens @ weight.mT
        return y if self.bias is None else y + (self.bias + gates @ self.delta_bias)[:, None]

    def _added_up(self, tokens: Tensor, gates: Tensor) -> Tensor:
        y = F.linear(tokens, self.weight, self.bias)
        for number, delta in enumerate(self.delta):
            bias = None if self.delta_bias is None else self.delta_bias[number]
            y = y + gates[:, number, None, None] * F.linear(tokens, delta, bias)
        return y

    def extra_repr(self) -> str:
        kind = "rank-one" if self.up is not None else "whole" if self.values is None else "sparse"
        return f"in_features={self.shape[0]}, out_features={self.shape[1]}, updates={kind}"


class WeightEnsembling(nn.Module):
    """A module whose linear layers all take the coefficients that a router gives for each sample.

    Args:
        module: With :class:`EnsembledLinear` layers; its forward takes the input first.
        router: Gives the coefficients.
        tasks: Where the router looks at a preference among so many tasks, and not at the input.
    """

    preference: Tensor | None

    def __init__(self, module: nn.Module, router: Router, *, tasks: int | None = None) -> None:
        super().__init__()
        self.module = module
        self.router = router
        start = None if tasks is None else torch.full((tasks,), 1 / tasks, dtype=router.bias.dtype)
        self.register_buffer("preference", start)

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Any:
        """What the module gives for `(n, ..., in)`."""
        coefficients = self.router(x if self.preference is None else self.preference[None])
        layers = list(ensembled(self.module))
        for layer in layers:
            layer.coefficients = coefficients
        try:
            return self.module(x, *arguments, **named)
        finally:
            for layer in layers:
                layer.coefficients = None


def _fewer_products(tokens: int, updates: int) -> bool:
    """Whether putting the weights of a sample together costs less than applying all updates to its tokens."""
    return tokens + updates < tokens * updates


def ensembled(module: nn.Module) -> Iterator[EnsembledLinear]:
    """The layers of a module whose weights are put together."""
    return (each for each in module.modules() if isinstance(each, EnsembledLinear))


def set_preference(model: nn.Module, preference: Sequence[float]) -> nn.Module:
    """Have a model that `pwe_moe` made prefer tasks by these weights, in its pool's order; gives it back."""
    for module in model.modules():
        if isinstance(module, WeightEnsembling) and module.preference is not None:
            module.preference.copy_(torch.as_tensor(preference))
    return model
