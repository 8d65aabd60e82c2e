"""DARE with averaging."""

from __future__ import annotations

from pydantic import Field

from fb_merging.operations.per_model import Fractions, fraction_kept
from fb_merging.operations.sparsify import Rescale
from fb_merging.task_vectors.combiners import Sum
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import DARE_SIMPLE_AVERAGE
from fb_merging.task_vectors.sparsifiers import DropAtRandom
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(DARE_SIMPLE_AVERAGE)
class DareSimpleAverage(ComposedMethod):
    r"""Drop entries of the task vectors at random, rescale the others, then average.

    With task vectors $\tau_t = \theta_t - \theta_0$ and density $d$:

    $$\theta = \theta_0 + \frac1T \sum_{t=1}^{T} \frac{m_t}{d} \odot \tau_t, \qquad
      m_t \sim \mathrm{Bernoulli}(d)$$

    Notes:
        `dare_linear` with $\lambda = 1 / T$.
        The random numbers are keyed by seed, model, tensor and position: the result is the same whatever the
        threads, the shards and the order of the models.
        mergekit's `rescale: true` restores the L1 norm of each tensor: `rescale="l1"` here.

    Reference:
        Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099.
    """

    density: Fractions = fraction_kept(0.5)
    rescale: Rescale = Field(
        default="probability",
        description="kept entries: divide by the density, restore the L1 norm of each tensor, or leave",
    )

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(DropAtRandom(density=self.density, rescale=self.rescale),),
            combine=Sum(normalize=True),
            scaling_factor=1.0,
        )
