"""Sparse mixtures as transformers lays them out: a router, and experts whose matrices are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fb_mixing.modules import dotted
from fusionbench_core import ModelPool, UnsupportedArchitecture

MATRICES = ("gate_up_proj", "down_proj")
"""Names of the experts' stacked matrices."""


@dataclass(frozen=True)
class RoutedExperts:
    r"""A module of `gate` and `experts`, such as Mixtral's.

    $$y = \sum_{t \in \mathrm{chosen}} g_t\, W^{down}_t h_t, \qquad
      h_t = \mathrm{act}(W^{gate}_t x) \odot W^{up}_t x$$

    Attributes:
        name: Dotted name of the module.
        block: The module. `gate.weight` is `(E, in)`, and `gate(x)` gives logits, gates and chosen experts;
            `experts.gate_up_proj` is `(E, 2 hidden, in)`, `experts.down_proj` is `(E, in, hidden)`.
    """

    name: str
    block: nn.Module

    @property
    def gate(self) -> nn.Module:
        return self.block.get_submodule("gate")

    @property
    def experts(self) -> nn.Module:
        return self.block.get_submodule("experts")

    @property
    def count(self) -> int:
        """How many experts there are."""
        return len(self.gate.get_parameter("weight"))

    @property
    def top_k(self) -> int:
        """How many experts see a token."""
        return self.gate.top_k  # pyright: ignore[reportReturnType]

    @property
    def tensors(self) -> list[str]:
        """Dotted names of the tensors with one part an expert, the router's first."""
        return [dotted(self.name, f"{part}.{key}") for part, key in _STACKED]

    def route(self, tokens: Tensor, kept: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Gates and chosen experts of tokens `(n, in)`, both `(n, top_k)`, as if only `kept` were there."""
        if kept is None:
            _, gates, chosen = self.gate(tokens)
            return gates, chosen
        places = torch.tensor(kept, device=tokens.device)
        weight = self.gate.get_parameter("weight")[places]
        _, gates, chosen = functional_call(self.gate, {"weight": weight}, (tokens,))
        return gates, places[chosen]

    def hidden(self, expert: int, tokens: Tensor) -> Tensor:
        """What the second matrix of an expert sees: `(n, in)` to `(n, hidden)`."""
        gate, up = F.linear(tokens, self.experts.get_parameter("gate_up_proj")[expert]).chunk(2, dim=-1)
        return self.experts.act_fn(gate) * up  # pyright: ignore[reportCallIssue]

    def output(self, expert: int, tokens: Tensor) -> Tensor:
        """What an expert gives: `(n, in)` to `(n, in)`."""
        return F.linear(self.hidden(expert, tokens), self.experts.get_parameter("down_proj")[expert])

    def keep(self, kept: Sequence[int]) -> None:
        """Remove all other experts."""
        for part, key in _STACKED:
            module = self.block.get_submodule(part)
            rows = module.get_parameter(key)[list(kept)]
            setattr(module, key, nn.Parameter(rows, requires_grad=False))
        for module in (self.block, self.gate, self.experts):
            if hasattr(module, "num_experts"):
                module.num_experts = len(kept)  # pyright: ignore[reportArgumentType]


_STACKED = (("gate", "weight"), *(("experts", key) for key in MATRICES))


def routed_experts(module: nn.Module, pool: ModelPool | None = None) -> list[RoutedExperts]:
    """The sparse mixtures of a module, in its order; of those in the pool's scope.

    Raises:
        UnsupportedArchitecture: if there are none.
    """
    found = [RoutedExperts(name, block) for name, block in module.named_modules() if _is_routed(block)]
    in_scope = [each for each in found if pool is None or all(pool.merges(key) for key in each.tensors)]
    if not in_scope:
        raise UnsupportedArchitecture(
            f"{type(module).__name__} has no sparse mixture of experts" + " in scope" * bool(found),
            why="one has a `gate` with one row an expert, and `experts` with stacked `gate_up_proj` and "
            "`down_proj`, as transformers lays out Mixtral",
            fix="widen modelpool.scope" if found else "choose a model such as Mixtral, OLMoE or Qwen3-MoE",
        )
    return in_scope


def _is_routed(block: nn.Module) -> bool:
    parts = dict(block.named_children())
    if not {"gate", "experts"} <= parts.keys():
        return False
    gate, experts = parts["gate"], parts["experts"]
    router, matrices = dict(gate.named_parameters()), dict(experts.named_parameters())
    # A router that looks at more than its logits cannot leave some of them out.
    if router.keys() != {"weight"} or list(gate.buffers()) or matrices.keys() != set(MATRICES):
        return False
    if not (hasattr(gate, "top_k") and hasattr(experts, "act_fn") and router["weight"].ndim == 2):
        return False
    count, width = router["weight"].shape
    hidden = matrices["down_proj"].shape[-1]
    stacked = {"gate_up_proj": (count, 2 * hidden, width), "down_proj": (count, width, hidden)}
    return all(tuple(matrices[key].shape) == shape for key, shape in stacked.items())
