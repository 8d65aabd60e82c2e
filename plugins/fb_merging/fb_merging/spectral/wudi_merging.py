"""WUDI-Merging."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.adam import Adam
from fb_merging.operations.combine import add_all
from fb_merging.operations.interference import least_interference
from fb_merging.operations.matrices import MatrixMethod
from fb_merging.spectral.records import LEAST_INTERFERENCE_SCRATCH, WUDI_MERGING
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(WUDI_MERGING)
class WudiMerging(MatrixMethod):
    r"""Find the task matrix that interferes least with all others, measured on the task matrices themselves.

    The rows of a task matrix $\Delta_t = \theta_t - \theta_0$ lie about where its layer's inputs do. So
    the merged $\Delta$ should act on them as $\Delta_t$ does:

    $$\theta = \theta_0 + \Delta, \qquad
      \Delta \approx \arg\min \sum_t \frac{1}{\|\Delta_t\|_F^2} \|(\Delta - \Delta_t) \Delta_t^\top\|_F^2$$

    Notes:
        `solver="adam"` (the paper) starts from $\sum_t \Delta_t$ and makes some small steps of Adam, far from
        the minimum. `solver="closed_form"` goes there: the smallest minimiser, plus `ridge` times
        $\|\Delta\|_F^2$ in the objective if the task matrices are nearly dependent.
        The gradient is $2 (\Delta A - B)$ with the same $A, B$ in every step: one product a step instead of
        two a task, and no automatic differentiation.
        Tensors that are no matrix get the mean task vector. There is no scaling factor, as in the paper.
        FusionBench makes 400 steps by default.

    Reference:
        Cheng et al., Whoever Started the Interference Should End It, ICML 2025, arXiv:2503.08099.
    """

    solver: Literal["adam", "closed_form"] = Field(
        default="adam", description="a few steps from the sum (the paper), or the minimum itself"
    )
    iterations: int = Field(default=300, ge=0, description="steps of Adam")
    learning_rate: float = Field(default=1e-5, gt=0, description="step size of Adam")
    ridge: float = Field(
        default=0.0, ge=0, description="weight of the squared norm in the objective of the closed form"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's; the closed form factorises all task matrices together."""
        declared = self.record.capabilities
        if self.solver == "adam":
            return declared
        return dataclasses.replace(declared, scratch=LEAST_INTERFERENCE_SCRATCH)

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """Few steps."""
        return {"iterations": 20}

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(group, self._combine)

    def _combine(self, deltas: list[Tensor]) -> Tensor:
        deltas = [delta for delta in deltas if delta.any()]
        norms = [float(torch.linalg.vector_norm(delta, dtype=torch.float64)) for delta in deltas]
        if self.solver == "closed_form":
            return least_interference(deltas, [norm**-2 for norm in norms], self.ridge)
        return self._descend(deltas, norms)

    def _descend(self, deltas: list[Tensor], norms: list[float]) -> Tensor:
        start = add_all(deltas)
        target = torch.zeros_like(start)
        units = [delta / norm for delta, norm in zip(deltas, norms)]
        for delta, unit in zip(deltas, units):
            # Taken from the start on, so that a single task, which is its own optimum, has no gradient.
            target += ((delta - start) @ unit.T) @ unit
        times_system = _product_with_gram(units)
        del units
        change = torch.zeros_like(start)
        adam = Adam(change, self.learning_rate)
        for _ in range(self.iterations):
            adam.step(change, times_system(change).sub_(target).mul_(2))
        return start + change


def _product_with_gram(matrices: list[Tensor]) -> Callable[[Tensor], Tensor]:
    r"""The map $X \mapsto X \sum_t A_t^\top A_t$ for matrices $A_t$ `(m, n)`, whichever way is shorter."""
    if sum(map(len, matrices)) >= matrices[0].shape[1]:
        gram = matrices[0].T @ matrices[0]
        for matrix in matrices[1:]:
            gram.addmm_(matrix.T, matrix)
        return lambda x: x @ gram
    stack = torch.cat(matrices)
    return lambda x: (x @ stack.T) @ stack
