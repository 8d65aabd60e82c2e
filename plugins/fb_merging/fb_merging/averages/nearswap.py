"""NearSwap."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import NEARSWAP
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(NEARSWAP)
class NearSwap(TensorMethod):
    r"""Move the base towards a model, entry by entry, by no more than a fixed step.

    $$\theta = \theta_0 + w\,(\theta_1 - \theta_0), \qquad
      w = \min\Big(1, \frac{t}{|\theta_1 - \theta_0|}\Big)$$

    Entries closer than $t$ are swapped, the others go a step of $t$: the difference is clipped to $\pm t$.

    Notes:
        $t$ is in units of the weights. The model card that NearSwap comes from takes 0.0001; mergekit has no
        default.

    Reference:
        alchemonaut, QuartetAnemoi-70B-t0.0001, 2024 (model card on the Hugging Face hub).
    """

    t: float = Field(default=0.0001, ge=0, description="the longest step, in units of the weights")

    def merge(self, group: TensorGroup) -> Tensor:
        return group.base + group.deltas[0].clamp(-self.t, self.t)
