"""Normalised-weight spherical interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import NUSLERP
from fb_merging.averages.spherical import SphericalMethod
from fb_merging.operations.sphere import arc_weights
from fb_merging.operations.vectors import cosine_similarity
from fusionbench_core import implements


@implements(NUSLERP)
class NuSlerp(SphericalMethod):
    r"""Interpolate between two models along an arc, by a weight for each.

    $$\theta = \frac{\sin((1-t)\Omega)}{\sin\Omega}\theta_1 + \frac{\sin(t\Omega)}{\sin\Omega}\theta_2,
      \qquad t = \frac{w_2}{w_1 + w_2}, \quad
      \cos\Omega = \frac{\langle\theta_1, \theta_2\rangle}{\|\theta_1\|\,\|\theta_2\|}$$

    With `space="task_vectors"`, the same on $\theta_t - \theta_0$, added to $\theta_0$.

    Notes:
        `vectors` says what is a vector: the whole tensor (mergekit's `nuslerp_flatten: true`), each run along
        the last dimension ("rows": `nuslerp_flatten: false`), or along the first ("columns":
        `nuslerp_row_wise: true` there). mergekit works on task vectors whenever there is a base; here that is
        said explicitly. Vectors that are 0, parallel or opposite are interpolated linearly.

    Reference:
        Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985. The weights and choices are those
        of NuSLERP in mergekit.
    """

    vectors: Literal["tensor", "rows", "columns"] = Field(
        default="tensor", description="take the angle between whole tensors, their rows, or their columns"
    )
    dot_threshold: float = Field(
        default=0.999999,
        ge=0,
        le=0.999999,
        description="interpolate linearly if the cosine is larger than this",
    )

    def average(self, tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        (a, b), t = tensors, shares[1]
        if self.vectors == "tensor" or a.dim() < 2:
            weights = arc_weights(cosine_similarity(a, b), t, self.dot_threshold)
            return a * weights[0] + b * weights[1]
        dim = -1 if self.vectors == "rows" else 0
        return self._interpolate(a, b, t, dim)

    def _interpolate(self, a: Tensor, b: Tensor, t: float, dim: int) -> Tensor:
        x, y = a.double(), b.double()
        lengths = x.norm(dim=dim, keepdim=True) * y.norm(dim=dim, keepdim=True)
        cosine = (x * y).sum(dim, keepdim=True) / torch.where(lengths > 0, lengths, 1)
        linear = (cosine.abs() > self.dot_threshold) | (lengths == 0)
        angle = torch.where(linear, 0, cosine).acos()
        sine = angle.sin()
        first = torch.where(linear, 1 - t, ((1 - t) * angle).sin() / sine)
        second = torch.where(linear, t, (t * angle).sin() / sine)
        return (x * first + y * second).to(a.dtype)
