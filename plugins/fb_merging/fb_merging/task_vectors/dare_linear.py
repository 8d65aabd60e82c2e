"""DARE with task arithmetic."""

from __future__ import annotations

from pydantic import Field

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.operations.sparsify import Rescale
from fb_merging.task_vectors.combiners import Sum
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import DARE_LINEAR
from fb_merging.task_vectors.sparsifiers import DropAtRandom
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(DARE_LINEAR)
class DareLinear(ComposedMethod):
    r"""Drop entries of the task vectors at random, rescale the others, then task arithmetic.

    With task vectors $\tau_t = \theta_t - \theta_0$ and density $d$ (the paper's drop rate is $1 - d$):

    $$\theta = \theta_0 + \lambda \sum_t w_t \frac{m_t}{d} \odot \tau_t, \qquad
      m_t \sim \mathrm{Bernoulli}(d)$$

    Notes:
        The random numbers are keyed by seed, model, tensor and position: the result is the same whatever the
        threads, the shards and the order of the models.
        The paper has no default: it searches for drop rates from 0.1 to 0.9 and, for language models, for
        $\lambda$ of 0.5 and 1 (github.com/yule-BUAA/MergeLM, issue 39). 0.5 and 0.3 are FusionBench's.
        mergekit's `rescale: true` restores the L1 norm of each tensor: `rescale="l1"` here.
        mergekit's $\lambda$ defaults to 1; FusionBench calls this `dare/task_arithmetic` and $1 - d$
        `sparsity_ratio`.

    Reference:
        Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099.
    """

    density: Fractions = fraction_kept(0.5)
    rescale: Rescale = Field(
        default="probability",
        description="kept entries: divide by the density, restore the L1 norm of each tensor, or leave",
    )
    weights: Numbers = weight_each()
    normalize: bool = Field(default=False, description="divide the sum by the sum of the weights")
    scaling_factor: float = Field(default=0.3, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(DropAtRandom(density=self.density, rescale=self.rescale),),
            combine=Sum(normalize=self.normalize),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
