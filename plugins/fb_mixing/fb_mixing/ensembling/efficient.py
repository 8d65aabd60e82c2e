"""Efficient weight-ensembling mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from fb_mixing.ensembling.layers import EnsembledLinear
from fb_mixing.ensembling.records import EFFICIENT_WEIGHT_ENSEMBLING_MOE
from fb_mixing.ensembling.weight_ensembling_moe import WeightEnsemblingMoE
from fb_mixing.modules import tensors_inside
from fusionbench_core import ModelPool, UnsupportedArchitecture, implements


@implements(EFFICIENT_WEIGHT_ENSEMBLING_MOE)
class EfficientWeightEnsemblingMoE(WeightEnsemblingMoE):
    r"""E-WEMoE: pruned task vectors, and one router for all modules.

    $$\theta^l_{\mathrm{mlp}}(x) = \theta^l_0 + \sum_{t=1}^{T} r_t(x^l)\,
      m_t \odot (\theta^l_t - \theta^l_0)$$

    where $m_t$ keeps the fraction `density` of each tensor's entries, the largest in magnitude, and the
    router r is shared by all modules, each with its own input $x^l$. All else is as in
    `weight_ensembling_moe`.

    Notes:
        The density of 0.1 is the paper's 90 % sparsity. FusionBench can also tell the router which module
        asks, by a sinusoidal code; that is not offered here. Of
        equal entries at the edge the first ones are kept.
        Memory: the base and, of what became mixtures, `density` of T copies with their positions, in the
        file as well; while it runs, one copy of a layer's weights a sample.

    Reference:
        Shen et al., Efficient and Effective Weight-Ensembling Mixture of Experts for Multi-Task Model
        Merging, 2024, arXiv:2410.21804.
    """

    density: float = Field(default=0.1, gt=0, le=1, description="fraction of entries kept in each update")
    shared_router: bool = Field(default=True, description="one router for all modules, or one each")

    def router_shapes(self, widths: Mapping[str, int], models: int) -> dict[str, dict[str, Any]]:
        shapes = super().router_shapes(widths, models)
        if not self.shared_router:
            return shapes
        if len(set(widths.values())) > 1:
            raise UnsupportedArchitecture(
                f"one router cannot serve modules with inputs of {sorted(set(widths.values()))} entries",
                why="it looks at what each of them sees",
                fix="narrow method.modules to modules of one width, or set method.shared_router=false",
            )
        return {"": next(iter(shapes.values()))} if shapes else {}

    def update_bytes(self, shape: tuple[int, ...], models: int) -> int:
        whole = super().update_bytes(shape, models)
        # A value and a position each; biases are held with their zeros.
        return min(round(2 * self.density * whole), whole) if len(shape) > 1 else whole

    def memory(self, pool: ModelPool) -> int:
        """As ever, and what finding the largest entries of a tensor takes."""
        found = tensors_inside(pool, self.modules).values()
        return super().memory(pool) + 32 * max((info.numel for info in found), default=0)

    def kept_entries(self, weight: Tensor) -> int | None:
        kept = count_kept(weight, self.density)
        # A position takes four bytes.
        return kept if kept * (weight.itemsize + 4) < weight.numel() * weight.itemsize else None

    def add_updates(
        self, layer: EnsembledLinear, updates: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> None:
        for number, update in enumerate(updates):
            places = largest(update, self.density)
            entries = update.flatten()[places]
            if layer.positions is None:
                layer.delta[number].view(-1)[places] = entries.to(layer.delta)
            else:
                layer.positions[number], layer.values[number] = places, entries
        for number, bias in enumerate(biases):
            places = largest(bias, self.density)
            layer.delta_bias[number][places] = bias[places].to(layer.delta_bias)


def count_kept(tensor: Tensor, density: float) -> int:
    """How many entries of a tensor a fraction of them is: one at least, if there are any."""
    return min(max(1, round(density * tensor.numel())), tensor.numel())


def largest(update: Tensor, density: float) -> Tensor:
    """Places in the flattened `update` of its largest entries in magnitude; of equal ones the first."""
    magnitude, kept = update.abs().flatten(), count_kept(update, density)
    if not kept:
        return magnitude.long()
    edge = magnitude.kthvalue(magnitude.numel() - kept + 1).values
    above = magnitude > edge
    level = magnitude == edge
    taken = above | (level & (level.cumsum(0) <= kept - above.sum()))
    return taken.nonzero()[:, 0]
