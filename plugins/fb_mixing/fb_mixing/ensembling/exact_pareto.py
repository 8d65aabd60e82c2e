"""Weights of losses that lead to an exact Pareto optimum for a preference."""

from __future__ import annotations

import torch
from torch import Tensor

from fb_mixing.ensembling.linear_program import maximise

EPSILON = 1e-4
"""Non-uniformity up to which losses count as balanced, as in the authors' code."""


def exact_pareto_weights(losses: Tensor, preference: Tensor, products: Tensor) -> Tensor:
    r"""EPO search: weights of the losses, whose gradient step balances $r_j l_j$, or else descends.

    With $\hat l_j = r_j l_j / \sum_i r_i l_i$, the non-uniformity and the adjustments are

    $$\mu = \sum_j \hat l_j \log (m \hat l_j), \qquad a_j = r_j \left(\log (m \hat l_j) - \mu\right)$$

    Where $\mu > \epsilon$, the weights balance: they maximise $\alpha^\top C a$ over the simplex, such that
    $(C \alpha)_j \ge 0$ for the largest $r_j l_j$ and $(C \alpha)_j \ge (C a)_j$ where $(C a)_j \le 0$ (if it
    is nowhere positive, such that $C \alpha \ge 0$). Otherwise they descend: they maximise
    $\sum_j (C \alpha)_j$ over the simplex, such that $C \alpha \ge 0$ and
    $\alpha^\top C a \ge \min(0, \max_j (C a)_j)$. Where nothing fits, they are r.

    Args:
        losses: `(m,)`, l, not negative.
        preference: `(m,)`, r, not negative, not all zero.
        products: `(m, m)`, C, inner products of the losses' gradients.

    Returns:
        $\alpha$, `(m,)` float64, which adds up to 1.

    Reference:
        Mahapatra and Rajan, Multi-Task Learning with User Preferences: Gradient Descent with Controlled
        Ascent in Pareto Optimization, ICML 2020.
    """
    r = preference.double() / preference.double().sum()
    weighted = r * losses.double()
    largest = products.abs().max().double()
    if not largest > 0 or not weighted.sum() > 0:
        return r
    # The programs are the same whatever the scale of the gradients.
    c = products.double() / largest
    share = (weighted / weighted.sum()).clamp(min=1e-12)
    uneven = torch.log(share * len(r))
    unbalance = (share * uneven).sum()
    ca = c @ (r * (uneven - unbalance))
    if unbalance > EPSILON:
        found = _balance(c, ca, weighted)
    else:
        rows = torch.cat([c, ca[None]])
        bounds = torch.cat([torch.zeros_like(r), ca.max().clamp(max=0)[None]])
        found = maximise(c.sum(0), rows, bounds)
    return r if found is None else found


def _balance(c: Tensor, ca: Tensor, weighted: Tensor) -> Tensor | None:
    if not (ca > 0).any():
        return maximise(ca, c, torch.zeros_like(ca))
    worst = weighted == weighted.max()
    kept = worst | (ca <= 0)
    return maximise(ca, c[kept], torch.where(worst, 0, ca)[kept])
