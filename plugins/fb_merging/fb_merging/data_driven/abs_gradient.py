"""How sensitive each task's loss is to the base's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from fb_merging.data_driven.gradients import mean_over_samples
from fb_merging.data_driven.records import ABS_GRADIENT
from fusionbench_core import Batch, Statistic, implements


@implements(ABS_GRADIENT)
class AbsGradient(Statistic):
    r"""Mean magnitude of the gradient of a task's loss at the base, entry by entry.

    $$|g| = \frac1n \sum_{i=1}^n |\nabla_\theta L(x_i, y_i; \theta_0)|$$

    L is the cross entropy of the true label, so labelled data are needed.

    Reference:
        Sun et al., Task Arithmetic in Trust Region, ICLR 2025, arXiv:2501.15065.
    """

    of_base = True

    @property
    def labelled(self) -> bool:
        return True

    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a parameter in the trunk's state dict -> its mean magnitude of gradient, of its shape.

        Raises:
            TaskError: if there are no samples, or no classes.
        """
        return mean_over_samples(model, batches, "empirical", self.split, _add_magnitude)


def _add_magnitude(total: Tensor, grad: Tensor, weight: float) -> None:
    total.add_(grad.abs(), alpha=weight)
