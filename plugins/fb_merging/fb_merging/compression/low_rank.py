"""Low-rank approximation of a task vector."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fb_merging.compression.of_rank import OfRank
from fb_merging.compression.records import LOW_RANK
from fb_merging.operations.matrices import LeftAlone, is_matrix
from fb_merging.operations.svd import sketching
from fusionbench_core import Capabilities, TensorGroup, TensorMethod, implements


@implements(LOW_RANK)
class LowRank(OfRank, TensorMethod):
    r"""Each task matrix of one model becomes its best approximation of a given rank.

    With $\theta - \theta_0 = \sum_i \sigma_i\,u_i v_i^\top$ a matrix, $\sigma_1 \ge \sigma_2 \ge \dots$:

    $$\theta' = \theta_0 + \sum_{i \le k} \sigma_i\,u_i v_i^\top$$

    Notes:
        $k$ is `rank`, or with `energy` the least for which $\sum_{i \le k} \sigma_i^2$ is that fraction of
        the whole. The result is dense: it shows what the rank costs in accuracy. Tensors that are no matrix,
        and those named in `exclude`, stay the model's.
        `factorization="randomized"` finds the triplets from a random sketch.
        The paper also quantises the factors and shares ranks out among layers.

    Reference:
        Ryu et al., Efficient Storage of Fine-Tuned Models via Low-Rank Approximation of Weight Residuals,
        2023, arXiv:2305.18425.
    """

    exclude: LeftAlone = ()

    @property
    def capabilities(self) -> Capabilities:
        return sketching(self.record.capabilities, self)

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return group.models[0]
        (delta,), (name,) = group.deltas, group.names
        return group.base + self.leading(delta, partial(group.uniform, name)).product()
