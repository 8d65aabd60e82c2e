"""Reinforced agent merging."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import hardshrink

from fb_merging.operations.combine import mean_of_active
from fb_merging.task_vectors.records import RAM
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(RAM)
class Ram(TensorMethod):
    r"""Average updates that several models made, keep those that one model made.

    With task vectors $\tau_t = \theta_t - \theta_0$, active where $|\tau_t| > \varepsilon$, entry by entry:

    $$\theta = \theta_0 + \frac{\sum_t [|\tau_t| > \varepsilon]\,\tau_t}
                               {\max(1, \sum_t [|\tau_t| > \varepsilon])}$$

    Notes:
        For models whose updates are sparse, as those of reinforcement learning are. $\varepsilon$ is in units
        of the weights; its default is that of mergekit and of the authors' code
        (github.com/xiangchi-yuan/mrl, `arm`), of which this is the formula.

    Reference:
        Yuan et al., Behavior Knowledge Merge in Reinforced Agentic Models, 2026, arXiv:2601.13572.
    """

    epsilon: float = Field(default=1e-5, ge=0, description="updates up to this size count as none")

    def merge(self, group: TensorGroup) -> Tensor:
        return group.base + mean_of_active([hardshrink(delta, self.epsilon) for delta in group.deltas])
