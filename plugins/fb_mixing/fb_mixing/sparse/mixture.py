"""The module Mixtral is made of: experts, of which a router chooses a few for each token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SparseMixture(nn.Module):
    r"""A sparse mixture of modules that work on each token by itself.

    $$y = \sum_{t \in \mathrm{top}_k(r)} g_t \, E_t(x), \qquad r = R x, \qquad
      g = \mathrm{softmax}(r)\ \text{over the chosen}$$

    Softmax over the chosen logits equals softmax over all of them, renormalised over the chosen.

    Attributes:
        router: `(experts, in)`, $R$.
        experts: The modules $E_t$.

    Args:
        experts: Modules that map `(n, in)` to `(n, out)`.
        in_features: Size of the last dimension of the input.
        top_k: Experts that see a token.
    """

    router: nn.Parameter

    def __init__(self, experts: Sequence[nn.Module], in_features: int, *, top_k: int = 2) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.top_k = top_k
        like = next(experts[0].parameters())
        self.router = nn.Parameter(like.new_zeros(len(experts), in_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in)` to `(..., out)`."""
        tokens = x.reshape(-1, x.shape[-1])
        if not len(tokens):
            return self.experts[0](x)
        gates, chosen = self.route(tokens)
        # Sorted by expert, each expert sees its own tokens only; the way back is a gather, which unlike a
        # scatter-add is deterministic everywhere.
        assigned = chosen.flatten()
        order = assigned.argsort(stable=True)
        counts = torch.bincount(assigned, minlength=len(self.experts)).tolist()
        parts = tokens[order // self.top_k].split(counts)
        outputs = torch.cat([expert(part) for expert, part in zip(self.experts, parts) if len(part)])
        outputs = outputs[order.argsort()].unflatten(0, (-1, self.top_k))
        mixed = (gates.unsqueeze(-1).to(outputs.dtype) * outputs).sum(1)
        return mixed.view(*x.shape[:-1], -1)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and indices of the chosen experts of tokens `(n, in)`, both `(n, top_k)`."""
        logits = F.linear(tokens, self.router.to(tokens.dtype))
        best, chosen = logits.to(torch.promote_types(logits.dtype, torch.float32)).topk(self.top_k, dim=-1)
        return best.softmax(-1), chosen

    def extra_repr(self) -> str:
        return f"experts={len(self.experts)}, top_k={self.top_k}"
