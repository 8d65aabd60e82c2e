"""LiNeS: layer-increasing network scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import add_all
from fb_merging.operations.vectors import l1_norm
from fb_merging.post.post_operation import Inner, PostOperation, inner_method
from fb_merging.post.records import LINES
from fusionbench_core import Survey, TensorGroup, TensorMethod, implements


@implements(LINES)
class Lines(PostOperation):
    r"""Scale the task vector that another method merged, more the deeper the layer.

    With $\tau$ the merged task vector, and layer $\ell$ of $L$, counted from 0:

    $$\theta^{(\ell)} = \theta_0^{(\ell)} + \Big(\alpha + \beta\,\frac{\ell}{L-1}\Big)\,\tau^{(\ell)}, \qquad
      \alpha = \frac1T\,\frac{\lVert \sum_t (\theta_t - \theta_0) \rVert_1}{\lVert \tau \rVert_1}
      \ \text{by default}$$

    Notes:
        Tensors outside the layers are scaled by $\alpha$, as in the authors' code. The layers of an encoder
        and of a decoder are counted apart.
        In the paper $\tau$ is not scaled by a $\lambda$ of its own, so the default inner method is task
        arithmetic with $\lambda = 1$; set `scaling_factor` to 1 in another one too. The paper chooses
        $\beta$ in 0.1, 0.2, …, 1.0 with validation data; the default is the middle of them. For a single
        fine-tuned model the paper takes $\beta = 1 - \alpha$.

    Reference:
        Wang et al., LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging,
        ICLR 2025, arXiv:2410.17146.
    """

    method: Inner = inner_method({"name": "task_arithmetic", "scaling_factor": 1.0})
    alpha: float | None = Field(
        default=None,
        description="α: factor of the first layer and outside the layers; null for the ratio of norms",
    )
    beta: float = Field(default=0.5, description="β: how much larger the factor of the last layer is")

    @property
    def extra_surveys(self) -> int:
        return 1 if self.alpha is None else 0

    def survey(self) -> Survey | None:
        inner = self.method.survey()
        if self.alpha is not None:
            return inner
        return Norms(self.method) if inner is None else InnerSurvey(self.method, inner)

    def merge(self, group: TensorGroup) -> Tensor:
        alpha = self.alpha
        if alpha is None:
            group.survey, ratio = group.survey
            alpha = ratio / len(group.names)
        depth = 0.0 if group.layer is None or not group.layers else group.layer / max(group.layers - 1, 1)
        base, update = self.merged(group)
        return torch.add(base, update, alpha=alpha + self.beta * depth)


@dataclass(frozen=True)
class InnerSurvey(Survey):
    """The survey of the inner method, which must be over before the norm of what it merges can be known."""

    method: TensorMethod
    state: Survey

    def observe(self, group: TensorGroup) -> Any:
        return self.state.observe(group)

    def advance(self, total: Any) -> Survey:
        state = self.state.advance(total)
        return replace(self, state=state) if isinstance(state, Survey) else Norms(self.method, state)


@dataclass(frozen=True)
class Norms(Survey):
    r"""$\lVert \sum_t \tau_t \rVert_1$ and the L1 norm of the merged task vector, over all tensors.

    The result is a pair: what the survey of the inner method found, and the ratio of the norms; 0 if the
    merged task vector is 0.
    """

    method: TensorMethod
    found: Any = None

    def observe(self, group: TensorGroup) -> Tensor:
        """fp64 `(2,)`."""
        group.survey = self.found
        base = group.base.clone()
        of_sum = l1_norm(add_all(group.deltas))
        of_merged = l1_norm(self.method.merge(group) - base)
        return torch.tensor([of_sum, of_merged], dtype=torch.float64)

    def advance(self, total: Tensor | None) -> tuple[Any, float]:
        of_sum, of_merged = (0.0, 0.0) if total is None else total.tolist()
        return self.found, of_sum / of_merged if of_merged else 0.0
