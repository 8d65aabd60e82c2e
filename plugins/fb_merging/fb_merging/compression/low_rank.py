"""Low-rank approximation of a task vector."""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.compression.records import LOW_RANK
from fb_merging.operations.matrices import LeftAlone, is_matrix
from fb_merging.operations.svd import rank_holding, svd
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(LOW_RANK)
class LowRank(TensorMethod):
    r"""Each task matrix of one model becomes its best approximation of a given rank.

    With $\theta - \theta_0 = \sum_i \sigma_i\,u_i v_i^\top$ a matrix, $\sigma_1 \ge \sigma_2 \ge \dots$:

    $$\theta' = \theta_0 + \sum_{i \le k} \sigma_i\,u_i v_i^\top$$

    Notes:
        $k$ is `rank`, or with `energy` the least for which $\sum_{i \le k} \sigma_i^2$ is that fraction of
        the whole. The result is dense: it shows what the rank costs in accuracy. Tensors that are no matrix,
        and those named in `exclude`, stay the model's.
        The paper also quantises the factors and shares ranks out among layers.

    Reference:
        Ryu et al., Efficient Storage of Fine-Tuned Models via Low-Rank Approximation of Weight Residuals,
        2023, arXiv:2305.18425.
    """

    rank: int | None = Field(default=None, ge=1, description="k: singular triplets kept; null for 16")
    energy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="fraction of the squared singular values kept, instead of `rank`",
    )
    exclude: LeftAlone = ()

    @model_validator(mode="after")
    def _one_of_them(self) -> LowRank:
        if self.rank is not None and self.energy is not None:
            raise ValueError("give rank or energy, not both")
        return self

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return group.models[0]
        factors = svd(group.deltas[0])
        kept = (self.rank or 16) if self.energy is None else rank_holding(factors.s, self.energy)
        return group.base + factors.top(kept).product()
