"""DOGE AdaMerging."""

from __future__ import annotations

import dataclasses

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.learned.coefficients import Coefficients
from fb_merging.learned.doge import shared_change
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import DOGE_ADAMERGING
from fb_merging.learned.trimming import largest
from fb_merging.operations.matrices import Excluded, named
from fb_merging.operations.vectors import norm
from fusionbench_core import FusionJob, implements


@implements(DOGE_ADAMERGING)
class DogeAdaMerging(LearnedMethod):
    r"""AdaMerging on task vectors that were changed so as to conflict less.

    For every task matrix, with $\Delta$ and $m_t$ as in `doge_ta`:

    $$\theta^l = \theta_0^l + \sum_t \lambda_t^l\, m_t^l \odot (\tau_t^l + \Delta^l), \qquad
      \min_\lambda \sum_t \mathbb E_{x \sim D_t} H\big(\mathrm{softmax} f_t(x; \theta)\big)$$

    Coefficients start from $\lambda_t^l = \eta / \|\tau_t^l\|_F$, one a task and matrix.

    Notes:
        Tensors that are no matrix stay the base's, as in `doge_ta`. FusionBench learns a change a task.
        100 steps are a moderate default for small models. Data as for `adamerging`.

    Reference:
        Wei et al., Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent, ICML 2025,
        arXiv:2501.01230.
    """

    copies = (3, 3.5)  # also what is kept of each, and the changed ones

    scaling_factor: float = Field(default=0.07, gt=0, description="η: norm of each scaled task matrix")
    density: float = Field(
        default=0.3, gt=0, le=1, description="fraction of entries kept of each task, over all matrices"
    )
    subspace: float = Field(
        default=1 / 6, ge=0, le=1, description="fraction of the singular directions that count as shared"
    )
    iterations: int = Field(default=400, ge=0, description="steps of Adam on the change of each matrix")
    change_learning_rate: float = Field(default=1e-4, gt=0, description="learning rate of these steps")
    exclude: Excluded = ()

    @classmethod
    def example(cls, models: object) -> dict[str, object]:
        """A few steps show all there is to check."""
        return {"steps": 2, "iterations": 5, "batch_size": 8}

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        matrices = {
            name: vectors
            for name, vectors in space.vectors.items()
            if vectors.dim() == 3 and not named(name, self.exclude)
        }
        kept = largest(matrices, self.density)
        vectors, starts = {}, []
        for name, each in matrices.items():
            weights = self._weights(each)
            change = shared_change(
                each.cpu().unbind(),
                weights,
                subspace=self.subspace,
                iterations=self.iterations,
                learning_rate=self.change_learning_rate,
            )
            vectors[name] = torch.where(kept[name] != 0, each + change.to(each), 0)
            starts.append(weights)
        base = {name: space.base[name] for name in vectors}
        changed = dataclasses.replace(space, base=base, vectors=vectors)
        merged = Coefficients(changed, tuple(job.pool), "tensor")
        merged.variables["coefficients"].data.copy_(torch.tensor(starts).view(len(starts), len(job.pool)).T)
        return merged

    def _weights(self, vectors: Tensor) -> list[float]:
        norms = [norm(each) for each in vectors.cpu()]
        return [self.scaling_factor / each if each else 0.0 for each in norms]
