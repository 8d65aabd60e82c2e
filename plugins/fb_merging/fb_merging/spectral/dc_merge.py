"""DC-Merge: merging with directional consistency."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import (
    Factorization,
    Factors,
    Oversampling,
    PowerIterations,
    leading_triplets,
    polar,
    sketching,
)
from fb_merging.operations.ties import ties
from fb_merging.spectral.records import DC_MERGE
from fb_merging.spectral.tsv_merging import rank_of_each
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(DC_MERGE)
class DcMerge(MatrixMethod):
    r"""TIES in an orthonormal basis that covers the leading singular vectors of all tasks.

    With $U_t, \Sigma_t, V_t$ the leading $k$ triplets of $\Delta_t = \theta_t - \theta_0$, $\tilde\Sigma_t$
    their smoothed singular values, and $\operatorname{polar}(A)$ the orthogonal factor of $A$:

    $$\theta = \theta_0 + \alpha\,U \big(D \odot \operatorname{TIES}(M_1, \dots, M_T)\big) V^\top, \qquad
      M_t = U^\top U_t \tilde\Sigma_t V_t^\top V$$

    $$U = \operatorname{polar}([U_1 \dots U_T]), \qquad V = \operatorname{polar}([V_1 \dots V_T])$$

    $D$ is 1 in the $T$ blocks on the diagonal, one a task, and 0 elsewhere.

    Notes:
        `smoothing="average"` gives all $k$ singular values of a task their mean, `"linear"` lets them fall
        evenly from $\rho$ times the last one (at most what they did), both with the same sum. The authors
        smooth adapters (`rank` 16, that of the adapters) and not models that were trained whole, which are
        the defaults here.
        $k$ is $\min(m, n) / T$, rounded down but at least 1, unless `rank` is given. Triplets of singular
        value 0 are left out.
        The formulas are those of the authors' code; it counts the entries that TIES keeps down.
        Tensors that are no matrix get the mean task vector, which $\alpha$ scales too.
        `factorization="randomized"` finds the triplets from a random sketch.

    Reference:
        Zhang et al., DC-Merge: Improving Model Merging with Directional Consistency, CVPR 2026,
        arXiv:2603.06242.
    """

    rank: int | None = Field(default=None, ge=1, description="k: triplets of each task; null: min(m, n) / T")
    smoothing: Literal["none", "average", "linear"] = Field(
        default="none", description="what becomes of the singular values of each task"
    )
    rho: float = Field(
        default=5.0, ge=1, description="ρ: first over last of the singular values smoothed linearly, at most"
    )
    density: float = Field(default=0.001, gt=0, le=1, description="fraction of the entries kept by TIES")
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the entries that have the elected sign"
    )
    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")
    factorization: Factorization = "exact"
    oversampling: Oversampling = 10
    power_iterations: PowerIterations = 2

    @property
    def capabilities(self) -> Capabilities:
        return sketching(self.record.capabilities, self)

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(group, partial(self._combine, group), scaling_factor=self.scaling_factor)

    def _combine(self, group: TensorGroup, deltas: list[Tensor]) -> Tensor:
        rank = self.rank or rank_of_each(deltas[0], len(deltas))
        tasks = [
            self._smooth(leading_triplets(delta, rank, self, partial(group.uniform, name)))
            for name, delta in zip(group.names, deltas)
        ]
        u = polar(torch.cat([task.u for task in tasks], dim=1))
        vh = polar(torch.cat([task.vh for task in tasks]))
        cores = [(u.T @ task.u * task.s) @ (task.vh @ vh.T) for task in tasks]
        merged = ties(cores, self.density, self.merge_func)
        own = torch.block_diag(*(torch.ones(len(task.s), len(task.s), dtype=u.dtype) for task in tasks))
        return u @ (merged * own) @ vh

    def _smooth(self, task: Factors) -> Factors:
        count = len(task.s)
        if self.smoothing == "none" or not count:
            return task
        first = min(self.rho, float(task.s[0] / task.s[-1])) if self.smoothing == "linear" else 1.0
        shares = torch.linspace(first, 1.0, count, dtype=task.s.dtype)
        return Factors(task.u, task.s.sum() * shares / shares.sum(), task.vh)
