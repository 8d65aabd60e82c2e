"""DOGE task arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.learned.doge import shared_change
from fb_merging.learned.records import DOGE_TA
from fb_merging.operations.magnitude import MagnitudeThreshold
from fb_merging.operations.matrices import MatrixMethod, is_matrix
from fb_merging.operations.vectors import norm
from fusionbench_core import Survey, TensorGroup, implements


@implements(DOGE_TA)
class DogeTaskArithmetic(MatrixMethod):
    r"""Task arithmetic with a learned change of all task vectors, kept out of the subspace they share.

    For every task matrix $\tau_t^l$, masked by $m_t$ to the largest entries of the task's matrices:

    $$\theta^l = \theta_0^l + \sum_t \lambda_t^l\, m_t^l \odot (\tau_t^l + \Delta^l), \qquad
      \lambda_t^l = \eta / \|\tau_t^l\|_F$$

    $\Delta$ makes what the merged matrix does to each task's own rows like what $\tau_t$ does,
    $\sum_t \sum_r \langle \tau_{t,r}, \tau_{t,r} - \sum_i \lambda_i (\tau_{i,r} + \Delta_r) \rangle^2$, by
    steps of Adam whose gradients have no part in the subspace that the leading left singular vectors of all
    tasks span.

    Notes:
        No data are needed. Tensors that are no matrix stay the base's; the authors' code also leaves out
        embeddings (see `exclude`).
        Gradients are in closed form, without automatic differentiation.

    Reference:
        Wei et al., Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent, ICML 2025,
        arXiv:2501.01230.
    """

    scaling_factor: float = Field(default=0.07, gt=0, description="η: norm of each scaled task matrix")
    density: float = Field(
        default=0.3, gt=0, le=1, description="fraction of entries kept of each task, over all matrices"
    )
    subspace: float = Field(
        default=1 / 6, ge=0, le=1, description="fraction of the singular directions that count as shared"
    )
    iterations: int = Field(default=400, ge=0, description="steps of Adam a matrix")
    learning_rate: float = Field(default=1e-4, gt=0, description="learning rate of Adam")

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """Few steps."""
        return {"iterations": 10}

    def survey(self) -> Survey:
        return MatrixThreshold(MagnitudeThreshold(self.density), tuple(self.exclude))

    def merge(self, group: TensorGroup) -> Tensor:
        deltas = group.deltas
        norms = [norm(delta) for delta in deltas]
        if not is_matrix(group, self.exclude) or not any(norms):
            return group.base
        weights = [self.scaling_factor / each if each else 0.0 for each in norms]
        change = shared_change(
            deltas,
            weights,
            subspace=self.subspace,
            iterations=self.iterations,
            learning_rate=self.learning_rate,
        )
        merged = group.base.clone()
        for delta, weight, threshold in zip(deltas, weights, group.survey):
            kept = (delta.abs() >= threshold) & (delta != 0)
            merged.add_(torch.where(kept, delta + change, 0), alpha=weight)
        return merged


@dataclass(frozen=True)
class MatrixThreshold(Survey):
    """The thresholds of magnitudes over the matrices alone."""

    inner: MagnitudeThreshold
    exclude: tuple[str, ...]

    def observe(self, group: TensorGroup) -> Any:
        if is_matrix(group, self.exclude):
            return self.inner.observe(group)
        nothing = TensorGroup(
            name=group.name,
            shape=(0,),
            start=0,
            names=group.names,
            models=[group.base.new_zeros(0) for _ in group.names],
            base=group.base.new_zeros(0),
            seed=0,
        )
        return self.inner.observe(nothing)

    def advance(self, total: Any) -> Any:
        found = self.inner.advance(total)
        return MatrixThreshold(found, self.exclude) if isinstance(found, MagnitudeThreshold) else found
