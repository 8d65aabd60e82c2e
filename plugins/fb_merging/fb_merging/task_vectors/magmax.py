"""MagMax."""

from __future__ import annotations

from pydantic import Field

from fb_merging.task_vectors.combiners import Largest
from fb_merging.task_vectors.composed import ComposedMethod
from fb_merging.task_vectors.records import MAGMAX
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import implements


@implements(MAGMAX)
class MagMax(ComposedMethod):
    r"""Of each entry, the update of largest magnitude.

    With task vectors $\tau_t = \theta_t - \theta_0$, entry by entry:

    $$\theta = \theta_0 + \lambda\,\tau_k, \qquad k = \arg\max_t |\tau_t|$$

    Notes:
        Of an update and its negative the positive one is taken, so that the order of the models does not
        matter; FusionBench takes that of the later model.
        The paper merges checkpoints of one sequential fine-tuning.

    Reference:
        Marczak et al., MagMax: Leveraging Model Merging for Seamless Continual Learning, ECCV 2024,
        arXiv:2407.06322.
    """

    scaling_factor: float = Field(default=0.5, description="λ: multiplies the merged task vector")

    def compose(self) -> TaskVectorMerging:
        return TaskVectorMerging(combine=Largest(), scaling_factor=self.scaling_factor)
