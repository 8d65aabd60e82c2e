"""Model Breadcrumbs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.task_vectors.combiners import Sum
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import BREADCRUMBS
from fb_merging.task_vectors.sparsifiers import KeepBand
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(BREADCRUMBS)
class Breadcrumbs(ComposedMethod):
    r"""Drop the largest and the smallest entries of each tensor, then task arithmetic.

    With task vectors $\tau_t = \theta_t - \theta_0$, and $m_t = 1$ where the magnitude is among the fraction
    `density` of each tensor that is left below its `gamma` largest ones:

    $$\theta = \theta_0 + \lambda \sum_t w_t\, m_t \odot \tau_t$$

    Notes:
        `density` comes first: with `density + gamma` above 1, less than `gamma` is dropped from the top, as
        mergekit does. Entries that equal a bound are kept, so equal magnitudes can keep more than `density`.
        The defaults keep the magnitudes between the quantiles β = 0.85 and γ = 0.993 of the paper's notation.
        The authors search for good values: their code (github.com/rezazzr/breadcrumbs) tries β from 0.8 to
        0.95, γ from 0.99 to 0.999 and $\lambda$ from 0.01 to 1, and begins with 0.85, 0.994 and 0.2. It ranks
        the entries of each run along the last dimension; the paper's formula, mergekit and this method rank
        whole tensors.
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
    weights: Numbers = weight_each()
    normalize: bool = Field(default=False, description="divide the sum by the sum of the weights")
    scaling_factor: float = Field(default=0.3, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(KeepBand(density=self.density, gamma=self.gamma, rescale=self.rescale),),
            combine=Sum(normalize=self.normalize),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
