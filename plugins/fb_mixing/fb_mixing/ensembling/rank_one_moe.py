"""Mixtures of rank-one experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from fb_mixing.ensembling.ensembling_method import EnsemblingMethod
from fb_mixing.ensembling.layers import EnsembledLinear
from fb_mixing.ensembling.records import RANK_ONE_MOE
from fb_mixing.modules import tensors_inside
from fb_mixing.smile.decomposition import decompose
from fusionbench_core import ModelPool, implements


@implements(RANK_ONE_MOE)
class RankOneMoE(EnsemblingMethod):
    r"""A router weighs the leading singular directions of every task vector anew for every sample.

    $$W(x) = W_0 + \sum_{t=1}^{T} \sum_{j=1}^{k} r_{tj}(x)\, \sigma_{tj}\, u_{tj} v_{tj}^\top, \qquad
      W_t - W_0 = \sum_j \sigma_{tj}\, u_{tj} v_{tj}^\top$$

    The coefficients r(x) of a sample are shared by the linear layers of a feed-forward module, and are the
    mean of a router over the tokens that it sees. Biases and everything else are task arithmetic. The routers
    start at `init_coefficient` and learn to make the predictions on unlabelled data certain.

    Notes:
        As implemented in FusionBench (rankone_moe), from https://github.com/EnnengYang/RankOne-MoE; no paper
        could be found to compare with. There a soft selection of coefficients can be switched on; its
        default, to keep all, is what is here. With two layers, the router's width between them is twice the
        number of its coefficients. A layer smaller than `rank` has as many directions as it has.
        FusionBench takes 1000 steps, on test inputs.
        Memory: the base and `rank` directions of each task vector, in fp32: the smallest of its family.
    """

    router_layers: Literal[0, 1, 2] = Field(
        default=1, description="layers of a router; without any, coefficients are the same for all samples"
    )
    rank: PositiveInt = Field(default=32, description="singular directions kept of each update")

    def update_bytes(self, shape: tuple[int, ...], models: int) -> int:
        return 4 * self.rank * sum(shape) * models if len(shape) > 1 else 0

    def memory(self, pool: ModelPool) -> int:
        """As ever, and the decomposition of the largest update: LAPACK takes four copies to work in."""
        found = tensors_inside(pool, self.modules).values()
        return super().memory(pool) + 32 * max((info.numel for info in found), default=0)

    def sample_bytes(self, entries: int) -> int:
        return 0

    def layer_shape(self, models: int) -> dict[str, Any]:
        return {"count": models * self.rank, "rank_one": True}

    def router_shapes(self, widths: Mapping[str, int], models: int) -> dict[str, dict[str, Any]]:
        shapes = super().router_shapes(widths, models)
        return {name: {**shape, "hidden": 2 * shape["coefficients"]} for name, shape in shapes.items()}

    def add_updates(
        self, layer: EnsembledLinear, updates: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> None:
        for number, update in enumerate(updates):
            kept = min(self.rank, *update.shape)
            if not kept:
                continue
            parts = decompose(update, kept, 0)
            start = number * self.rank
            layer.up[:, start : start + kept] = parts.up
            layer.down[start : start + kept] = parts.down
        if biases:
            layer.bias.add_(self.scaling_factor * torch.stack(list(biases)).sum(0))
