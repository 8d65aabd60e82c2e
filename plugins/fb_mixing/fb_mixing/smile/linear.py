"""The layer SMILE is made of: a linear layer plus a sparse mixture of updates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmileLinear(nn.Module):
    r"""A shared linear layer plus a sparse mixture of one update an expert.

    $$y = W_0 x + b_0 + \sum_{t \in \mathrm{top}_k(r)} g_t \, (\Delta_t x + \delta_t), \qquad
      r_t = \lVert G_t x \rVert_2, \qquad g = \mathrm{softmax}(r)\ \text{over the chosen}$$

    Softmax over the chosen logits equals softmax over all of them, renormalised over the chosen. A
    single expert needs no gate and has none.

    The update $\Delta_t$ is held as two factors, `up[t] @ down[t]`, or whole as `delta[t]`.

    Attributes:
        weight: `(out, in)`, $W_0$.
        bias: `(out,)`, $b_0$; None without bias.
        gate: `(experts, gate_k, in)`, $G$; None for one expert.
        down: `(experts, k, in)`, singular values times right singular vectors; None where dense.
        up: `(experts, out, k)`, left singular vectors; None where dense.
        delta: `(experts, out, in)`; None where factored.
        delta_bias: `(experts, out)`, $\delta$; None without bias.

    Args:
        in_features: Size of the last dimension of the input.
        out_features: Size of the last dimension of the output.
        experts: Number of experts.
        gate_k: Rows of one expert's gate.
        k: Rank of one expert's update; -1 holds updates whole.
        top_k: Experts that see a token.
        bias: Whether there are biases.
        dtype: Type of the parameters.
        device: Where the parameters lie.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        experts: int,
        gate_k: int,
        k: int,
        top_k: int = 1,
        bias: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.experts = experts
        self.gate_k = gate_k
        self.k = k
        self.top_k = top_k
        dense = k == -1

        def parameter(*shape: int, wanted: bool = True) -> Any:
            if not wanted:
                return None
            return nn.Parameter(torch.zeros(shape, dtype=dtype, device=device), requires_grad=False)

        self.weight = parameter(out_features, in_features)
        self.bias = parameter(out_features, wanted=bias)
        self.gate = parameter(experts, gate_k, in_features, wanted=experts > 1)
        self.down = parameter(experts, k, in_features, wanted=not dense)
        self.up = parameter(experts, out_features, k, wanted=not dense)
        self.delta = parameter(experts, out_features, in_features, wanted=dense)
        self.delta_bias = parameter(experts, out_features, wanted=bias)

    @property
    def active_parameters(self) -> int:
        """How many parameters one token meets: the shared layer, the gate, and `top_k` experts."""
        shared = [self.weight, self.bias, self.gate]
        expert = [self.down, self.up, self.delta, self.delta_bias]
        count = sum(tensor.numel() for tensor in shared if tensor is not None)
        return count + self.top_k * sum(tensor[0].numel() for tensor in expert if tensor is not None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in)` to `(..., out)`."""
        shared = F.linear(x, self.weight, self.bias)
        tokens = x.reshape(-1, self.in_features)
        if not len(tokens):
            return shared
        if self.gate is None:
            return shared + self._update(0, tokens).view_as(shared)
        gates, chosen = self.route(tokens)
        return shared + self._mixture(tokens, gates, chosen).view_as(shared).type_as(shared)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and indices of the chosen experts of tokens `(n, in)`, both `(n, top_k)`."""
        if self.gate is None:
            return tokens.new_ones(len(tokens), 1), tokens.new_zeros(len(tokens), 1, dtype=torch.long)
        best, chosen = self.logits(tokens).topk(self.top_k, dim=-1)
        return best.softmax(-1), chosen

    def logits(self, tokens: Tensor) -> Tensor:
        """What the gate gives for tokens `(n, in)`: `(n, experts)` in fp32 or fp64; zeros without a gate."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        if self.gate is None:
            return tokens.new_zeros(len(tokens), 1, dtype=wide)
        projected = F.linear(tokens, self.gate.flatten(0, 1)).unflatten(-1, (self.experts, -1))
        # norms of half-precision projections overflow and tie
        return torch.linalg.vector_norm(projected.to(wide), dim=-1)

    def _mixture(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        # Tokens are sorted by expert, so that each expert is one matrix product over its own tokens
        # only; the way back is a gather, which unlike a scatter-add is deterministic everywhere.
        assigned = chosen.flatten()
        order = assigned.argsort(stable=True)
        counts = torch.bincount(assigned, minlength=self.experts).tolist()
        parts = tokens[order // self.top_k].split(counts)
        updates = torch.cat([self._update(expert, part) for expert, part in enumerate(parts) if len(part)])
        updates = updates[order.argsort()]
        if self.top_k == 1:
            return updates
        return (gates.unsqueeze(-1) * updates.unflatten(0, (-1, self.top_k))).sum(1)

    def _update(self, expert: int, tokens: Tensor) -> Tensor:
        bias = None if self.delta_bias is None else self.delta_bias[expert]
        if self.delta is not None:
            return F.linear(tokens, self.delta[expert], bias)
        return F.linear(F.linear(tokens, self.down[expert]), self.up[expert], bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, experts={self.experts}, "
            f"gate_k={self.gate_k}, k={self.k}, top_k={self.top_k}"
        )
