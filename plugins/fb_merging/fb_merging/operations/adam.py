"""Adam on one tensor, for gradients that are known in closed form or taken by hand."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    r"""Steps of Adam, without automatic differentiation.

    With $m$ and $v$ the running means of the gradient and of its square, both corrected for their start:

    $$x \leftarrow x - \eta\,\hat m / (\sqrt{\hat v} + \epsilon)$$

    Args:
        like: Shape and dtype of the tensor to optimise.
        learning_rate: $\eta$.
        betas: Decay of the two means, per step.
        eps: $\epsilon$.

    Reference:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
    """

    def __init__(
        self,
        like: Tensor,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._learning_rate, self._betas, self._eps = learning_rate, betas, eps
        self._steps = 0

    def step(self, values: Tensor, gradient: Tensor) -> None:
        """Change `values` in place."""
        self._steps += 1
        adam_step(
            values,
            gradient,
            (self._mean, self._square),
            self._steps,
            self._learning_rate,
            betas=self._betas,
            eps=self._eps,
        )


def adam_step(
    values: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    number: int,
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """Step `number`, counted from 1: changes the values and both moments in place; see :class:`Adam`."""
    mean, square = moments
    first, second = betas
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    scale = (1 - second**number) ** 0.5
    step = learning_rate / (1 - first**number)
    values.addcdiv_(mean, (square.sqrt() / scale).add_(eps), value=-step)
