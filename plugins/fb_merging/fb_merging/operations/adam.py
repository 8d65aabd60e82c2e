"""Adam on one tensor, for objectives whose gradient is known in closed form."""

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
        first, second = self._betas
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (1 - second**self._steps) ** 0.5
        step = self._learning_rate / (1 - first**self._steps)
        values.addcdiv_(self._mean, (self._square.sqrt() / scale).add_(self._eps), value=-step)
