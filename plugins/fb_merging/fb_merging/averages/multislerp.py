"""Spherical averaging of several models."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fb_merging.averages.records import MULTISLERP
from fb_merging.averages.spherical import SphericalMethod
from fb_merging.operations.sphere import on_sphere
from fusionbench_core import implements


@implements(MULTISLERP)
class MultiSlerp(SphericalMethod):
    r"""Average the directions and the lengths of the models apart, tensor by tensor.

    With each tensor flattened to one vector, and weights that add up to 1:

    $$\theta = \Big(\sum_t w_t \|\theta_t\|\Big) \frac{m}{\|m\|}, \qquad
      m = \sum_t w_t \frac{\theta_t}{\|\theta_t\|}$$

    With `space="task_vectors"`, the same on $\theta_t - \theta_0$, added to $\theta_0$.

    Notes:
        This is what mergekit's Multi-SLERP gives: it goes on from $m / \|m\|$ along the mean of the tangents
        to all models, which is exactly 0, as $m$ is their sum. It works on task vectors whenever there is a
        base; here that is said explicitly. Tensors that are 0 count for the length alone. Where the
        directions cancel, the weighted mean of the tensors (mergekit fails, unless there are two).

    Reference:
        Goddard, Multi-SLERP, 2025, as in mergekit.
    """

    def average(self, tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        return on_sphere(tensors, shares)
