"""DELLA with task arithmetic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.operations.sparsify import Rescale
from fb_merging.task_vectors.combiners import Sum
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import DELLA_LINEAR
from fb_merging.task_vectors.sparsifiers import MagPrune
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(DELLA_LINEAR)
class DellaLinear(ComposedMethod):
    r"""Drop small entries more often than large ones, then task arithmetic.

    With task vectors $\tau_t = \theta_t - \theta_0$, and $r = 0, \dots, n-1$ the rank of an entry's magnitude
    among the $n$ of its row, from the smallest:

    $$\theta = \theta_0 + \lambda \sum_t w_t \frac{m_t}{p_t} \odot \tau_t, \qquad
      m_t \sim \mathrm{Bernoulli}(p_t), \qquad p_t = d - \varepsilon + \frac{2 \varepsilon r}{n - 1}$$

    Notes:
        DELLA without the election of signs.
        The probability of each kept entry is its own, and so is the rescaling. An entry alone in its row is
        kept with probability `density`; convolutions are ranked by output channel, vectors as a whole.
        ε is that of the authors' code and of mergekit, whose default is 0.15: probabilities span 2ε. The
        paper writes ε for the whole span. The authors' other choice, one ranking for a whole tensor, is
        `window="tensor"`. mergekit's `rescale: true` restores the L1 norm of each tensor: `rescale="l1"`.

    Reference:
        Deep et al., DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling,
        2024, arXiv:2406.11617.
    """

    density: Fractions = fraction_kept(0.5)
    epsilon: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="the smallest entry is kept with probability density - ε, the largest with density + ε",
    )
    window: Literal["row", "tensor"] = Field(
        default="row", description="rank the entries of each row (output unit), or of the whole tensor"
    )
    rescale: Rescale = Field(
        default="probability",
        description="kept entries: divide by their probability, restore the L1 norm of each tensor, or leave",
    )
    weights: Numbers = weight_each()
    normalize: bool = Field(default=False, description="divide the sum by the sum of the weights")
    scaling_factor: float = Field(default=0.3, description="λ: multiplies the merged task vector")

    @model_validator(mode="after")
    def _can_be_composed(self) -> DellaLinear:
        self.compose()
        return self

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(
                MagPrune(
                    density=self.density, epsilon=self.epsilon, window=self.window, rescale=self.rescale
                ),
            ),
            combine=Sum(normalize=self.normalize),
            weights=self.weights,
            scaling_factor=self.scaling_factor,
        )
