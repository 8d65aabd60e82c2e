"""Localize-and-Stitch without data."""

from __future__ import annotations

from fb_merging.operations.per_model import Fractions, Numbers, fraction_kept, weight_each
from fb_merging.task_vectors.combiners import ActiveMean
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import LOCALIZE_AND_STITCH
from fb_merging.task_vectors.sparsifiers import KeepLargest
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(LOCALIZE_AND_STITCH)
class LocalizeAndStitch(ComposedMethod):
    r"""Keep the few largest updates of each model, and average where they overlap.

    With task vectors $\tau_t = \theta_t - \theta_0$, and $m_t = 1$ where the magnitude is among the fraction
    `density` of largest ones of the model:

    $$\theta = \theta_0 + \frac{\sum_t m_t \odot \tau_t}{\max(1, \sum_t m_t)}$$

    Notes:
        The variant that needs no data; the paper's other one learns the masks. As in the authors' code one
        threshold holds for the whole model. Kept entries that are 0 do not
        count in the mean. With weights, the sum of $w_t m_t \tau_t$ over that of $|w_t|\,m_t$.

    Reference:
        He et al., Localize-and-Stitch: Efficient Model Merging via Sparse Task Arithmetic, TMLR 2025,
        arXiv:2408.13656.
    """

    density: Fractions = fraction_kept(0.05)
    weights: Numbers = weight_each()

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(
            sparsify=(KeepLargest(density=self.density),),
            combine=ActiveMean(),
            weights=self.weights,
            scaling_factor=1.0,
        )
