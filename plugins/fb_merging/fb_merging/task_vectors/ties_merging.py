"""TIES-Merging."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.task_vectors.combiners import Elect
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import TIES_MERGING
from fb_merging.task_vectors.sparsifiers import KeepLargest
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(TIES_MERGING)
class TiesMerging(ComposedMethod):
    r"""Trim small updates, elect a sign for each entry, merge the updates that agree with it.

    With task vectors $\tau_t = \theta_t - \theta_0$, trimmed to their largest entries $\hat\tau_t$:

    $$\theta = \theta_0 + \lambda \frac{\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t \hat\tau_t}
                                       {\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t}, \qquad
      \gamma = \mathrm{sgn} \sum_t w_t \hat\tau_t$$

    Notes:
        `trim="model"` (the paper) takes one threshold over the whole task vector of a model, which is found
        exactly in two streaming passes; `trim="tensor"` takes one a tensor and needs none.
        All entries as large as the threshold (in fp32) are kept, so equal magnitudes can keep more than
        `density`.
        Where the trimmed updates cancel exactly no sign is elected and the base stays, as the formula says;
        the authors' code and FusionBench take the sign of the majority of all entries there.
        $\lambda = 1$ with the disjoint mean is the paper's recipe without validation data.
        FusionBench sums the agreeing updates and takes $\lambda = 0.3$ (`merge_func="sum"`,
        `scaling_factor=0.3` here), and calls 100 x `density` `threshold`.
        The paper has no weights. mergekit's TIES is `trim="tensor"` with weights; its `normalize: false` is
        `merge_func="sum"`, its `rescale: true` is `rescale="l1"`. Where updates cancel it takes the positive
        ones, and it counts `density * n` down to whole entries. The sum of weights here is that of their
        magnitudes, so that a negative weight turns an update around when it stands alone, too.

    Reference:
        Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708.
    """

    density: Fractions = fraction_kept(0.2)
    trim: Literal["model", "tensor"] = Field(
        default="model", description="one threshold over all merged entries of a model, or one a tensor"
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )
    rescale: Literal["l1", "none"] = Field(
        default="none", description="kept entries: restore the L1 norm of each tensor, or leave"
    )
    weights: Numbers = weight_each()
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(KeepLargest(density=self.density, trim=self.trim, rescale=self.rescale),),
            combine=Elect(merge_func=self.merge_func),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
