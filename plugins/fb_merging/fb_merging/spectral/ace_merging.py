"""ACE-Merging: adaptive covariance estimation."""

from __future__ import annotations

import math
import statistics

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import svd
from fb_merging.spectral.records import ACE_MERGING
from fusionbench_core import TensorGroup, implements


@implements(ACE_MERGING)
class AceMerging(MatrixMethod):
    r"""RegMean with covariances of the inputs estimated from the task matrices, which may differ in scale.

    With $\Delta_t = \theta_t - \theta_0$, $\tilde\Delta_t$ the same less the mean of its rows,
    $\Sigma_t = \tilde\Delta_t^\top \tilde\Delta_t$ and $\bar c$ the mean of the rows of $\sum_t \Sigma_t$:

    $$W = \sum_t \tilde\Delta_t (\Sigma_t + \epsilon_t I)
      \Big(\sum_t (\Sigma_t + \epsilon_t I) + \mathbf{1} \bar c\Big)^{-1}$$

    If the tasks are alike, $\epsilon_t = \epsilon$ and $\theta = \theta_0 + \alpha W$. They are not if
    $\operatorname{var}(\ell) / \operatorname{mean}(\ell)^2 > \gamma$ for $\ell_t = \log \|\Delta_t\|_F^2$.
    Then $\Sigma_t$ and $\epsilon_t$ are divided by the trace of $\Sigma_t$ and $\bar c$ by the mean
    $\|\Delta_t\|_F^2$, and the leading directions of a residual are added, with equal singular values:

    $$\theta = \theta_0 + \alpha\,(W + \bar\sigma\,U_k V_k^\top), \qquad
      U \Sigma V^\top = W + \sum_t \Delta_t \Big(\Sigma_t - \frac1T \sum_s (\Sigma_s + \epsilon_s I)\Big)$$

    Notes:
        The formulas are those of the authors' code. They look at the scale of the weights: where unlike tasks
        have $\|\Delta_t\|_F^2$ far below $\epsilon$, the residual, and with it the update, can be larger than
        any of them.
        Models that equal the base in a matrix are not heard there. Other tensors get the mean task vector.

    Reference:
        Xu et al., ACE-Merging, CVPR 2026, arXiv:2603.02945.
    """

    epsilon: float = Field(default=1e-2, gt=0, description="ε: added to the diagonal of each covariance")
    heterogeneity_threshold: float = Field(
        default=0.3, ge=0, description="γ: tasks whose log norms vary more than this are normalised"
    )
    refined_fraction: float = Field(
        default=0.3, ge=0, le=1, description="fraction of the residual's directions added to unlike tasks"
    )
    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(group, self._combine, scaling_factor=self.scaling_factor)

    def _combine(self, deltas: list[Tensor]) -> Tensor:
        wide = [delta.double() for delta in deltas if delta.any()]
        n = wide[0].shape[1]
        if sum(map(len, wide)) >= n:
            return self._merge(wide, torch.ones(n, dtype=torch.float64), n)
        # All of it happens among the rows of the task matrices: in a basis of them, the systems are small.
        rows = torch.linalg.qr(torch.cat(wide).T).Q.T
        return self._merge([delta @ rows.T for delta in wide], rows.sum(1), n) @ rows

    def _merge(self, deltas: list[Tensor], ones: Tensor, n: int) -> Tensor:
        """fp64 `(m, k)`.

        Args:
            deltas: Task matrices `(m, k)`, in an orthonormal basis of their rows.
            ones: The vector of ones in that basis, `(k,)`.
            n: Its length outside of it: columns of the weight.
        """
        norms = [float(delta.square().sum()) for delta in deltas]
        unlike = heterogeneity(norms) > self.heterogeneity_threshold
        scales = [_scale(delta) if unlike else 1.0 for delta in deltas]
        k = deltas[0].shape[1]
        system, target = deltas[0].new_zeros(k, k), torch.zeros_like(deltas[0])
        for delta, scale in zip(deltas, scales):
            # One covariance at a time: each may be larger than the weight.
            covariance, centered = _covariance(delta, scale), delta - delta.mean(0)
            target += torch.addmm(centered, centered, covariance, beta=self.epsilon / scale)
            system += covariance
            del covariance, centered
        prior = torch.outer(ones, ones @ system / n)
        system.diagonal().add_(sum(self.epsilon / scale for scale in scales))
        shared = prior.div_(statistics.fmean(norms) + _TINY if unlike else 1.0).add_(system)
        merged = torch.linalg.solve(shared, target, left=False)
        del shared, prior, target
        return merged + self._refinement(merged, deltas, scales, system) if unlike else merged

    def _refinement(
        self, merged: Tensor, deltas: list[Tensor], scales: list[float], system: Tensor
    ) -> Tensor:
        residual = merged.clone()
        for delta, scale in zip(deltas, scales):
            residual += delta @ _covariance(delta, scale).sub_(system, alpha=1 / len(deltas))
        leading = svd(residual).top(int(min(residual.shape) * self.refined_fraction))
        level = float(leading.s.mean()) if len(leading.s) else 0.0
        return leading.u @ leading.vh * level


_TINY = 1e-12
"""Keeps divisions and logarithms finite."""


def _covariance(delta: Tensor, scale: float) -> Tensor:
    """$\\Sigma_t$ `(k, k)` over `scale`."""
    centered = delta - delta.mean(0)
    return (centered.T @ centered).div_(scale)


def _scale(delta: Tensor) -> float:
    """The trace of $\\Sigma_t$, kept from 0."""
    return float((delta - delta.mean(0)).square().sum()) + _TINY


def heterogeneity(norms: list[float]) -> float:
    """How much the logarithms of squared norms vary, relative to the square of their mean."""
    logs = [math.log(norm + _TINY) for norm in norms]
    return statistics.variance(logs) / (statistics.fmean(logs) ** 2 + _TINY) if len(logs) > 1 else 0.0
