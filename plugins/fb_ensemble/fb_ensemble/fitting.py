"""Convex problems, solved in fp64 to their optimum: the same answer whatever the order and the threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fb_ensemble.space import MEANS, Space
from fb_ensemble.validation import Predictions, mean_over_tasks


def fit_weights(tasks: Sequence[Predictions], space: Space) -> Tensor:
    r"""Weights $w \ge 0$, $\sum_t w_t = 1$, of least cross-entropy, the mean over all tasks.

    $$w = \arg\min_w \frac1K \sum_{k=1}^K \frac{1}{n_k} \sum_i -\log \mathrm{softmax}(y_w(x_i))_{c_i}$$

    Args:
        tasks: Predictions of all models on each task.
        space: What $y_w$ is a mean of; not votes, which have no gradient.

    Returns:
        `(models,)`, fp64.
    """
    models = len(tasks[0].logits)

    def weights(free: Tensor) -> Tensor:
        # A weight of 0 is far away on this scale; its logarithm must not be -inf.
        return free.softmax(0).clamp(min=1e-12)

    def loss(free: Tensor) -> Tensor:
        column = weights(free).view(-1, 1, 1)
        return mean_over_tasks(
            [F.cross_entropy(MEANS[space](task.logits, column), task.labels) for task in tasks]
        )

    found = weights(_minimum(loss, torch.zeros(models, dtype=torch.float64)))
    return found / found.sum()


def fit_classifier(features: Tensor, labels: Tensor, classes: int, l2: float) -> tuple[Tensor, Tensor]:
    r"""Multinomial logistic regression.

    $$\min_{W, b} \sum_i -\log \mathrm{softmax}(W x_i + b)_{c_i} + \frac{\lambda}{2} \lVert W \rVert_F^2$$

    Args:
        features: `(n, d)`, fp64.
        labels: Class indices `(n,)`.
        classes: Number of classes.
        l2: $\lambda$.

    Returns:
        Weight `(classes, d)` and bias `(classes,)`; of all biases the one that sums to 0.
    """
    n, width = features.shape

    def split(flat: Tensor) -> tuple[Tensor, Tensor]:
        table = flat.view(classes, width + 1)
        return table[:, :-1], table[:, -1]

    def loss(flat: Tensor) -> Tensor:
        weight, bias = split(flat)
        misfit = F.cross_entropy(features @ weight.T + bias, labels, reduction="sum")
        return (misfit + l2 / 2 * weight.square().sum()) / n

    weight, bias = split(_minimum(loss, torch.zeros(classes * (width + 1), dtype=torch.float64)))
    return weight, bias - bias.mean()


def _minimum(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where a smooth convex function is least, by L-BFGS."""
    with torch.enable_grad():
        point = start.clone().requires_grad_()
        descent = torch.optim.LBFGS(
            [point],
            max_iter=400,
            tolerance_grad=1e-7,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            descent.zero_grad()
            value = loss(point)
            value.backward()
            return value

        descent.step(closure)
    return point.detach()
