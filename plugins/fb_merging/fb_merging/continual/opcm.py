"""OPCM: continual merging by orthogonal projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.continual.records import OPCM
from fb_merging.operations.matrices import MatrixMethod, is_matrix
from fb_merging.operations.svd import svd
from fusionbench_core import Survey, TensorGroup, implements


@implements(OPCM)
class Opcm(MatrixMethod):
    r"""Add task vectors one by one, each without its part in the space that those before it use.

    With $\tau_t = \theta_t - \theta_0$, and $U \Sigma V^\top$ of the sum so far for matrices:

    $$s_1 = \tau_1, \qquad s_t = s_{t-1} + \mathcal{P}_{t-1}(\tau_t), \qquad
      \theta = \theta_0 + \frac{s_T}{\lambda_T}, \qquad
      \lambda_T = \frac{\|s_T\|}{\frac1T \sum_t \|\tau_t\|}$$

    $\mathcal{P}(\tau) = \sum_{(i, j) \in K} \langle \tau, u_i v_j^\top \rangle\,u_i v_j^\top$ over the pairs
    with $i \neq j$ that are not both among the leading directions, those that hold a fraction $\alpha$ of
    the sum of the singular values. Norms are of the whole model.

    Notes:
        Models arrive in the order of the pool. The paper scales by $\lambda_t$ after each model; scaling
        changes no singular vector, so the last $\lambda$ is enough, and one extra pass finds it.
        Tensors that are no matrix are added without projection. Directions that the sum does not have
        (singular value 0) are not projected out; the authors' code takes arbitrary ones.
        The first model counts as one task. To add models to an earlier result, put that first and say how
        many models it holds and what their $\lambda$ was; unknown, it is taken to be
        $\sqrt{\text{merged\_models}}$, what it is for orthogonal task vectors of equal norm.
        FusionBench shuffles the models by default.

    Reference:
        Tang et al., Merging on the Fly Without Retraining, NeurIPS 2025, arXiv:2501.09522.
    """

    alpha: float = Field(
        default=0.5, ge=0, le=1, description="α: fraction of the singular values whose directions are taken"
    )
    merged_models: int = Field(default=1, ge=1, description="how many models the first one is a merge of")
    merged_scaling: float | None = Field(
        default=None, gt=0, description="λ of that merge; none: the root of merged_models"
    )

    @model_validator(mode="after")
    def _check_merged(self) -> Opcm:
        if self.merged_scaling is not None and self.merged_models == 1:
            raise ValueError("merged_scaling belongs to a merge of several models: set merged_models")
        return self

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        # Folds are in fp64 whatever the tensor.
        each, besides = self.capabilities.scratch
        return each * models + besides

    def survey(self) -> TaskVectorNorms:
        return TaskVectorNorms(self)

    def merge(self, group: TensorGroup) -> Tensor:
        total = self.fold(group)
        if not total.any():
            return group.base
        return group.base + (total / group.survey).to(group.base.dtype)

    def fold(self, group: TensorGroup) -> Tensor:
        """$s_T$ of one tensor, fp64."""
        matrix = is_matrix(group, self.exclude)
        total = group.deltas[0].double() * self.first_scaling
        for delta in group.deltas[1:]:
            total += outside(total, delta.double(), self.alpha) if matrix else delta
        return total

    @property
    def first_scaling(self) -> float:
        """$\\lambda$ of the first model."""
        return self.merged_models**0.5 if self.merged_scaling is None else self.merged_scaling


@dataclass(frozen=True)
class TaskVectorNorms(Survey):
    """Finds $\\lambda_T$: the norm of the folded task vectors over the mean norm of the task vectors."""

    method: Opcm

    def observe(self, group: TensorGroup) -> Tensor:
        """Squared norms, fp64 `(1 + models,)`: of the fold, then of each task vector."""
        vectors = [self.method.fold(group), *group.deltas]
        return torch.stack([vector.double().square().sum() for vector in vectors])

    def advance(self, total: Tensor | None) -> float:
        if total is None or not total[1:].any():
            return 1.0
        folded, first, *others = total.sqrt().tolist()
        held = self.method.merged_models
        return folded / ((held * first + sum(others)) / (held + len(others)))


def outside(merged: Tensor, delta: Tensor, alpha: float) -> Tensor:
    """The part of `delta` that the projection of OPCM leaves, given all that is merged; fp64 `(m, n)`."""
    factors = svd(merged)
    share = factors.s.cumsum(0) / factors.s.sum()
    leading = int((share <= alpha).sum())
    inside = factors.u.T @ delta @ factors.vh.T
    taken = torch.diag(inside.diagonal())
    taken[:leading, :leading] = inside[:leading, :leading]
    return delta - factors.u @ taken @ factors.vh
