"""CABS: conflict-aware and balanced sparsification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import pad

from fb_merging.operations.combine import weighted_sum
from fb_merging.operations.per_model import Numbers, values_of, weight_each
from fb_merging.task_vectors.records import CABS
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(CABS)
class Cabs(TensorMethod):
    r"""Keep the n largest of every m consecutive updates, one model after the other, none twice.

    With task vectors $\tau_t = \theta_t - \theta_0$, in the order of the models:

    $$\theta = \theta_0 + \lambda \sum_t w_t\, m_t \odot \tau_t, \qquad
      m_t = \mathrm{top}_{n:m}\big(|\tau_t| \odot (1 - m_1) \odot \dots \odot (1 - m_{t-1})\big)$$

    Notes:
        Blocks of `m` run through the flattened tensor; what is left at its end is a shorter block, of which
        as many as `n` are kept (the authors' code drops it). Entries that are 0 are never taken, so that they
        stay free for the next models. As soon as earlier models have taken a whole block, nothing is left of
        it for the others: `n` times the number of models should not be above `m`. The authors' code, for two
        models, lets the second one take entries of the first where `n` is at least half of `m`.
        `n` and `m` are the authors' for language models, where they merge with `scaling_factor` 1.2.

    Reference:
        Yang et al., CABS: Conflict-Aware and Balanced Sparsification for Enhancing Model Merging, ICML 2025,
        arXiv:2503.01874.
    """

    n: int = Field(default=64, ge=1, description="updates kept in each block")
    m: int = Field(default=256, ge=1, description="entries of a block")
    weights: Numbers = weight_each()
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    @model_validator(mode="after")
    def _a_block_holds_what_is_kept(self) -> Cabs:
        if self.n > self.m:
            raise ValueError(f"n ({self.n}) of m ({self.m}) entries cannot be kept")
        return self

    def check(self, models: Sequence[str]) -> None:
        values_of(self.weights, models, "weights")

    def merge(self, group: TensorGroup) -> Tensor:
        taken = torch.zeros_like(group.base, dtype=torch.bool)
        pruned = []
        for delta in group.deltas:
            pruned.append(keep_in_blocks(delta.masked_fill(taken, 0), self.n, self.m))
            taken |= pruned[-1] != 0
        merged = weighted_sum(pruned, values_of(self.weights, group.names, "weights"))
        return torch.add(group.base, merged, alpha=self.scaling_factor)


def keep_in_blocks(delta: Tensor, n: int, m: int) -> Tensor:
    """0 in place of all but the `n` largest magnitudes of each `m` consecutive entries.

    Of equal magnitudes, the first ones are kept.
    """
    flat = delta.reshape(-1)
    blocks = pad(flat, (0, -len(flat) % m)).view(-1, m)
    order = blocks.abs().argsort(dim=1, descending=True, stable=True)[:, :n]
    kept = torch.zeros_like(blocks).scatter_(1, order, blocks.gather(1, order))
    return kept.view(-1)[: len(flat)].view(delta.shape)
