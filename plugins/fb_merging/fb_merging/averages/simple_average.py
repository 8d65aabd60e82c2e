"""Simple averaging."""

from __future__ import annotations

from torch import Tensor

from fb_merging.averages.records import SIMPLE_AVERAGE
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(SIMPLE_AVERAGE)
class SimpleAverage(TensorMethod):
    r"""The mean of all models, entry by entry.

    $$\theta = \frac{1}{T} \sum_{t=1}^{T} \theta_t$$

    Notes:
        The base is not among the averaged models. Sums run in the accumulation dtype (fp32 at least),
        not in that of the checkpoints.

    Reference:
        Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482.
    """

    def merge(self, group: TensorGroup) -> Tensor:
        return group.mean()
