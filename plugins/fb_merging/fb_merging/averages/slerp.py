"""Spherical linear interpolation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import SLERP
from fb_merging.operations.sphere import arc_weights
from fb_merging.operations.vectors import cosine_similarity
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(SLERP)
class Slerp(TensorMethod):
    r"""Interpolate between two models along the arc between them, tensor by tensor.

    With each tensor flattened to one vector, and $\Omega$ the angle between the two:

    $$\theta = \frac{\sin((1-t)\Omega)}{\sin\Omega}\theta_1 + \frac{\sin(t\Omega)}{\sin\Omega}\theta_2,
      \qquad \cos\Omega = \frac{\langle\theta_1, \theta_2\rangle}{\|\theta_1\|\,\|\theta_2\|}$$

    Notes:
        `t=0` gives the first model of the pool, `t=1` the second. The base, if there is one, does not count
        and is not read; to interpolate between the base and a model, put both among the models.
        (FusionBench counts `_pretrained_` as one of the two.)
        The angle is taken between unit vectors, the weights are applied to the tensors as they are, like
        FusionBench and mergekit do. Nearly parallel or opposite tensors ($|\cos\Omega|$ above
        `dot_threshold`), tensors of one entry, and those that are all 0 are interpolated linearly.

    Reference:
        Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.
    """

    t: float = Field(default=0.5, ge=0, le=1, description="0: the first model; 1: the second")
    dot_threshold: float = Field(
        default=0.9995,
        ge=0,
        le=0.999999,
        description="interpolate linearly if the cosine is larger than this",
    )

    def merge(self, group: TensorGroup) -> Tensor:
        first, second = group.models
        weights = arc_weights(cosine_similarity(first, second), self.t, self.dot_threshold)
        return first * weights[0] + second * weights[1]
