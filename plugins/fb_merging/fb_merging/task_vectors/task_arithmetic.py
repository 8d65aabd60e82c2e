"""Task arithmetic."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.task_vectors.records import TASK_ARITHMETIC
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(TASK_ARITHMETIC)
class TaskArithmetic(TensorMethod):
    r"""The base plus the scaled sum of all task vectors.

    $$\theta = \theta_0 + \lambda \sum_{t=1}^{T} (\theta_t - \theta_0)$$

    Notes:
        The best $\lambda$ falls as tasks are added; 0.3 is the paper's recommendation for many tasks, 1 / T
        is the simple average. A negative $\lambda$ unlearns.

    Reference:
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089.
    """

    scaling_factor: float = Field(default=0.3, description="λ: multiplies the sum of the task vectors")

    def merge(self, group: TensorGroup) -> Tensor:
        return group.shifted_base(self.scaling_factor)
