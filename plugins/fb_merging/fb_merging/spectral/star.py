"""STAR: spectral truncation and rescale."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import mean
from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import svd
from fb_merging.spectral.records import STAR
from fusionbench_core import TensorGroup, implements


@implements(STAR)
class Star(MatrixMethod):
    r"""Cut each task matrix to its main directions, stretch it to its old nuclear norm, average.

    With $\theta_t - \theta_0 = \sum_i \sigma_{t,i}\,u_{t,i} v_{t,i}^\top$, and $k_t$ the fewest directions
    that hold a fraction $\eta$ of the sum of the singular values:

    $$\theta = \theta_0 + \frac1T \sum_t \frac{\sum_i \sigma_{t,i}}{\sum_{i \le k_t} \sigma_{t,i}}
      \sum_{i \le k_t} \sigma_{t,i}\,u_{t,i} v_{t,i}^\top$$

    Notes:
        $\eta$ is a fraction, the paper gives percent. Tensors that are no matrix get the mean task vector.

    Reference:
        Lee et al., STAR: Spectral Truncation and Rescale for Model Merging, NAACL 2025, arXiv:2502.10339.
    """

    eta: float = Field(default=0.4, gt=0, le=1, description="η: fraction of the nuclear norm kept")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(
            group,
            lambda deltas: mean([truncate_and_rescale(delta, self.eta) for delta in deltas]),
        )


def truncate_and_rescale(matrix: Tensor, eta: float) -> Tensor:
    """fp64 `(m, n)`: the leading triplets that hold a fraction `eta` of the nuclear norm, with all of it."""
    factors = svd(matrix)
    if not len(factors.s):
        return factors.product()
    norms = factors.s.cumsum(0)
    kept = int((norms < eta * norms[-1]).sum()) + 1
    return factors.top(kept).product() * (norms[-1] / norms[kept - 1])
