"""Concrete masks: Bernoulli variables relaxed so that their logits can be learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fusionbench_core import matrix

Draw = Annotated[
    Literal["relaxed", "binary", "mean"],
    Field(description="the mask of the result: a relaxed sample, a sample of zeros and ones, or its mean"),
]


class ConcreteMask:
    r"""One mask for all task vectors, with a logit for every entry.

    $$m = \mathrm{sigmoid}\big((\ell + \log u - \log(1 - u)) / T\big), \qquad u \sim \mathcal U(0, 1)$$

    divided by its mean in each tensor, so that it keeps the size of task vectors.

    Args:
        like: Name of a tensor -> a tensor of its shape and dtype.
        generator: Gives the random numbers of a key.
        temperature: $T$; towards 0, the mask becomes binary.
        initial_logit: $\ell$ at the beginning.

    Attributes:
        logits: Name of a tensor -> $\ell$, which is learned, in its dtype.

    Reference:
        Maddison et al., The Concrete Distribution, ICLR 2017, arXiv:1611.00712.
    """

    def __init__(
        self,
        like: Mapping[str, Tensor],
        generator: Callable[..., torch.Generator],
        *,
        temperature: float,
        initial_logit: float,
    ) -> None:
        self._generator, self._temperature = generator, temperature
        self.logits = {
            name: torch.full_like(tensor, initial_logit).requires_grad_() for name, tensor in like.items()
        }

    def sample(self, step: int | str) -> dict[str, Tensor]:
        """A relaxed sample, differentiable with respect to the logits; each step has its own."""
        return {
            name: _unit_mean(torch.sigmoid((logit + self._noise(step, name)) / self._temperature))
            for name, logit in self.logits.items()
        }

    @torch.no_grad()
    def final(self, draw: Draw) -> dict[str, Tensor]:
        """The mask of the result."""
        if draw == "relaxed":
            return self.sample("final")
        if draw == "mean":
            return {name: _unit_mean(logit.sigmoid()) for name, logit in self.logits.items()}
        return {
            name: _unit_mean((logit + self._noise("final", name) > 0).to(logit.dtype))
            for name, logit in self.logits.items()
        }

    def details(self) -> dict[str, Any]:
        """The learned probability to keep an entry, averaged over each tensor."""
        kept = [[float(logit.detach().sigmoid().mean())] for logit in self.logits.values()]
        columns = ["mean probability"]
        return {"mask": matrix(kept, rows=list(self.logits), columns=columns, title="Learned concrete mask")}

    def _noise(self, step: int | str, name: str) -> Tensor:
        logit = self.logits[name]
        uniform = torch.rand(logit.shape, generator=self._generator("mask", step, name), dtype=torch.float32)
        return uniform.clamp_(1e-6, 1 - 1e-6).logit().to(logit)


def _unit_mean(mask: Tensor) -> Tensor:
    return mask / mask.mean().clamp(min=torch.finfo(mask.dtype).tiny)
