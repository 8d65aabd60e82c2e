"""Model Breadcrumbs with TIES."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.task_vectors.combiners import Elect
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import BREADCRUMBS_TIES
from fb_merging.task_vectors.sparsifiers import KeepBand
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(BREADCRUMBS_TIES)
class BreadcrumbsTies(ComposedMethod):
    r"""Drop the largest and the smallest entries of each tensor, then merge what agrees with an elected sign.

    With task vectors $\tau_t = \theta_t - \theta_0$, masks $m_t$ as in `breadcrumbs`, and
    $\hat\tau_t = m_t \odot \tau_t$:

    $$\theta = \theta_0 + \lambda \frac{\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t \hat\tau_t}
                                       {\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t}, \qquad
      \gamma = \mathrm{sgn} \sum_t w_t \hat\tau_t$$

    Notes:
        A combination that mergekit offers; its `normalize: false`, the default there, is `merge_func="sum"`.
        `density` comes first: with `density + gamma` above 1, less than `gamma` is dropped from the top, as
        mergekit does. Entries that equal a bound are kept, so equal magnitudes can keep more than `density`.
        The defaults are those of `breadcrumbs`, where it says what they were compared with.
        mergekit counts `density * n` down to whole entries and defaults to density 1, gamma 0.01.

    Reference:
        Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795.
    """

    density: Fractions = fraction_kept(0.143)
    gamma: float = Field(
        default=0.007, ge=0, lt=1, description="fraction of each tensor that is dropped from the top"
    )
    rescale: Literal["l1", "none"] = Field(
        default="none", description="kept entries: restore the L1 norm of each tensor, or leave"
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )
    weights: Numbers = weight_each()
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(KeepBand(density=self.density, gamma=self.gamma, rescale=self.rescale),),
            combine=Elect(merge_func=self.merge_func),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
