"""Mixtures that leave out a token's second expert where its gate is small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_mixing.pruning.routed import RoutedExperts


class SkippingGate(nn.Module):
    r"""A router of two experts a token, whose second gate is zero where it is small.

    $$g = \begin{cases} (1, 0) & g_2 < \beta\, g_1 \\ (g_1, g_2) & \text{else} \end{cases}$$

    Attributes:
        beta: $\beta$, a scalar.

    Args:
        gate: A router; see :class:`RoutedExperts`.
    """

    beta: Tensor

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.register_buffer("beta", torch.zeros((), dtype=torch.float32))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, gates and chosen experts of tokens `(n, in)`."""
        logits, gates, chosen = self.gate(tokens)
        total = gates.sum(-1)
        small = gates[:, 1] < self.beta * gates[:, 0]
        alone = torch.stack([total, torch.zeros_like(total)], dim=-1)
        return logits, torch.where(small[:, None], alone, gates), chosen


class SkippingExperts(nn.Module):
    """Experts that see the tokens with a gate that is not zero, and no others.

    Args:
        experts: See :class:`RoutedExperts`.
    """

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, tokens: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        """The experts' outputs for tokens `(n, in)`, added up: `(n, in)`."""
        taken = gates[:, 1] != 0
        y = self.experts(tokens, chosen[:, :1], gates[:, :1])
        if not taken.any():
            return y
        second = self.experts(tokens[taken], chosen[taken, 1:], gates[taken, 1:])
        return y.index_add(0, taken.nonzero()[:, 0], second.to(y.dtype))


def make_skipping(block: nn.Module) -> SkippingGate:
    """Have a mixture skip experts; gives its router, which skips none yet."""
    gate = SkippingGate(block.get_submodule("gate"))
    block.gate = gate
    block.experts = SkippingExperts(block.get_submodule("experts"))
    return gate


@torch.no_grad()
def skip_experts(mixtures: Sequence[RoutedExperts], seen: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Have mixtures skip experts; gives their thresholds, the medians on the tokens that they see."""
    ratios: dict[str, list[Tensor]] = {each.name: [] for each in mixtures}
    for tokens in seen:
        for each in mixtures:
            gates, _ = each.route(tokens[each.name])
            ratios[each.name].append((gates[:, 1] / gates[:, 0]).float())
    thresholds = {}
    for each in mixtures:
        found = torch.cat(ratios[each.name]).double()
        # The mean of the middle two, unlike torch.median.
        median = found.quantile(0.5)
        make_skipping(each.block).beta.copy_(median)
        thresholds[each.name] = float(median)
    return thresholds
