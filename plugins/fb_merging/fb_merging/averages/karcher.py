"""The Karcher mean."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor

from fb_merging.averages.records import KARCHER
from fb_merging.averages.spherical import SphericalMethod
from fb_merging.operations.per_model import numbers_of
from fb_merging.operations.sphere import on_sphere
from fusionbench_core import implements


@implements(KARCHER)
class Karcher(SphericalMethod):
    r"""The point on the sphere with the least squared angles to all models, tensor by tensor.

    With each tensor flattened to one vector, and weights that add up to 1:

    $$\theta = \Big(\sum_t w_t \|\theta_t\|\Big)\, \arg\min_{\|u\| = 1} \sum_t w_t\,
      \arccos^2 \frac{\langle u, \theta_t\rangle}{\|\theta_t\|}$$

    Notes:
        Found by the fixed-point iteration $u \leftarrow \exp_u \sum_t w_t \log_u(\theta_t / \|\theta_t\|)$
        from the normalised mean. All its points are combinations of the models, so it runs in fp64 on the
        cosines between them, whatever the dtype of the models. For two models of the same length it is SLERP
        at one half. Tensors that are 0 count for the length alone. Where the directions cancel there is no
        such mean, and the weighted mean of the tensors is taken.
        mergekit counts the base as one more model; put it among the models for that.

    Reference:
        Wang et al., Functionality-Oriented LLM Merging on the Fisher-Rao Manifold, 2026, arXiv:2603.04972.
    """

    max_iter: int = Field(default=10, ge=1, description="most steps of the iteration")
    tolerance: float = Field(default=1e-5, gt=0, description="stop at steps shorter than this, in radians")

    @model_validator(mode="after")
    def _no_weight_is_negative(self) -> Karcher:
        if min(numbers_of(self.weights), default=0) < 0:
            raise ValueError("the weights must not be negative")
        return self

    def average(self, tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        return on_sphere(tensors, shares, self.max_iter, self.tolerance)
