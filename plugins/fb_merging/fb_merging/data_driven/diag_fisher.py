"""The diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from fb_merging.data_driven.gradients import Estimate, mean_over_samples
from fb_merging.data_driven.records import DIAG_FISHER
from fusionbench_core import Batch, Statistic, implements


@implements(DIAG_FISHER)
class DiagFisher(Statistic):
    r"""Mean squared gradient of the log-likelihood with respect to every parameter of the trunk.

    $$F = \frac1n \sum_{i=1}^n \mathbb E_{y \sim p_\theta(y \mid x_i)}
      \big(\nabla_\theta \log p_\theta(y \mid x_i)\big)^2$$

    entry by entry. `estimate="exact"` takes the expectation over all classes, one backward pass each;
    `"sampled"` draws one label a sample; `"empirical"` takes the true label, the empirical Fisher.

    Notes:
        Gradients are squared sample by sample. FusionBench squares their sum over a batch.

    Reference:
        Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022, arXiv:2111.09832,
        section 3.2.
    """

    estimate: Estimate = "exact"

    @property
    def labelled(self) -> bool:
        return self.estimate == "empirical"

    def collect(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Name of a parameter in the trunk's state dict -> its Fisher information, of its shape.

        Raises:
            TaskError: if there are no samples, or no classes.
        """
        return mean_over_samples(model, batches, self.estimate, self.split, _add_square)


def _add_square(total: Tensor, grad: Tensor, weight: float) -> None:
    total.addcmul_(grad, grad, value=weight)
