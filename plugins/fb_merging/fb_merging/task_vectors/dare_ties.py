"""DARE with TIES."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.operations.sparsify import Rescale
from fb_merging.task_vectors.combiners import Elect
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import DARE_TIES
from fb_merging.task_vectors.sparsifiers import DropAtRandom, KeepLargest
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(DARE_TIES)
class DareTies(ComposedMethod):
    r"""Drop entries of the task vectors at random, rescale the others, then TIES.

    With task vectors $\tau_t = \theta_t - \theta_0$ and density $d$, $\mathrm{trim}$ keeping the largest
    magnitudes of each model's whole task vector:

    $$\theta = \theta_0 + \lambda \frac{\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t \hat\tau_t}
                                       {\sum_t 1[\mathrm{sgn}\,\hat\tau_t = \gamma]\,w_t}, \qquad
      \hat\tau_t = \mathrm{trim}\Big(\frac{m_t}{d} \odot \tau_t\Big), \quad
      \gamma = \mathrm{sgn} \sum_t w_t \hat\tau_t$$

    Notes:
        The paper puts DARE before the whole of TIES, its trimming included, as its author says and
        FusionBench does; mergekit leaves the trimming out: `trim_density=1` here.
        The paper has no defaults: for language models it searches for drop rates from 0.1 to 0.9, $\lambda$
        of 0.5 and 1, and kept fractions of 0.5, 0.7 and 0.9, and trims tensor by tensor, `trim="tensor"` here
        (github.com/yule-BUAA/MergeLM, issues 38, 39 and 43). The density is FusionBench's, the rest TIES'.
        The random numbers are keyed by seed, model, tensor and position: the result is the same whatever the
        threads, the shards and the order of the models.
        mergekit's `rescale: true` restores the L1 norm of each tensor: `rescale="l1"` here.
        mergekit's `normalize: false`, its default, is `merge_func="sum"`.

    Reference:
        Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099.
    """

    density: Fractions = fraction_kept(0.5)
    rescale: Rescale = Field(
        default="probability",
        description="kept entries: divide by the density, restore the L1 norm of each tensor, or leave",
    )
    trim_density: float = Field(
        default=0.2, gt=0, le=1, description="fraction of the entries kept by TIES after the drop; 1: all"
    )
    trim: Literal["model", "tensor"] = Field(
        default="model",
        description="one threshold over all merged entries of a model, or one a tensor",
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the elected sign"
    )
    weights: Numbers = weight_each()
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(
                DropAtRandom(density=self.density, rescale=self.rescale),
                KeepLargest(density=self.trim_density, trim=self.trim),
            ),
            combine=Elect(merge_func=self.merge_func),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
