"""Isotropic merging in the common and in task-specific subspaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod, wide_sum
from fb_merging.operations.svd import (
    Factorization,
    Factors,
    Oversampling,
    PowerIterations,
    leading,
    leading_triplets,
    polar_parts,
    sketching,
)
from fb_merging.spectral.records import ISO_CTS
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(ISO_CTS)
class IsoCts(MatrixMethod):
    r"""Like Iso-C, but the weakest directions of the sum give way to directions of single tasks.

    With $\Delta_t = \theta_t - \theta_0$ and $r = \min(m, n)$: $U, \Sigma, V$ are the leading $r - T n_t$
    triplets of $\sum_t \Delta_t$, and $U_t, \Sigma_t, V_t$ the leading $n_t$ triplets of
    $\Delta_t - U U^\top \Delta_t$. All of them, made orthonormal together, get one singular value:

    $$\theta = \theta_0 + \alpha\,\bar\sigma\,\operatorname{polar}([U_1 \dots U_T\; U])\,
      \operatorname{polar}([V_1 \dots V_T\; V])^\top, \qquad
      \bar\sigma = \operatorname{mean}(\Sigma_1, \dots, \Sigma_T, \Sigma)$$

    Notes:
        $n_t$ is $(r - \lfloor \text{common\_space\_fraction} \cdot r \rfloor) / T$, rounded to the nearest
        integer, as in the authors' code and in FusionBench; small matrices may get none, which is Iso-C.
        Tensors that are no matrix get the mean task vector, which $\alpha$ scales too.
        `factorization="randomized"` finds the $n_t$ triplets of each task from a random sketch; those of the
        sum, which are most of them, stay exact.
        Triplets of singular value 0 have arbitrary vectors and are left out, also of the mean.
        The authors choose $\alpha$ on validation data.

    Reference:
        Marczak et al., No Task Left Behind, ICML 2025, arXiv:2502.04959.
    """

    common_space_fraction: float = Field(
        default=0.8, ge=0, le=1, description="fraction of the directions that are the sum's"
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
        each = task_dimensions(min(deltas[0].shape), len(deltas), self.common_space_fraction)
        rank = min(deltas[0].shape) - each * len(deltas)
        common = leading(wide_sum(deltas), rank, deltas[0].dtype)
        own = [
            self._own_directions(delta, common.u, each, partial(group.uniform, name))
            for name, delta in zip(group.names, deltas)
            if each
        ]
        parts = [*own, common]
        s = torch.cat([part.s for part in parts])
        if not len(s):
            return torch.zeros_like(deltas[0])
        u, vh = torch.cat([part.u for part in parts], dim=1), torch.cat([part.vh for part in parts])
        del own, common, parts
        return torch.linalg.multi_dot([*polar_parts(u)[0], *polar_parts(vh)[0]]).mul_(s.mean())

    def _own_directions(
        self, delta: Tensor, common: Tensor, rank: int, draw: Callable[[], Tensor]
    ) -> Factors:
        """What a task matrix does outside of the common column space."""
        rest = delta.double()
        # What is left of a matrix that lies in the common space is its rounding.
        noise = max(rest.shape) * torch.finfo(rest.dtype).eps * float(torch.linalg.matrix_norm(rest))
        rest = rest.addmm(common, common.T @ rest, alpha=-1)
        found = leading_triplets(rest, rank, self, draw, delta.dtype)
        return found.top(int((found.s > noise).sum()))


def task_dimensions(rank: int, tasks: int, common_space_fraction: float) -> int:
    """How many of `rank` directions each task gets for itself."""
    wanted = round((rank - int(rank * common_space_fraction)) / tasks)
    return min(wanted, rank // tasks)
