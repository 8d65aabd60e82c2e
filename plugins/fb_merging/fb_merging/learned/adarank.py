"""AdaRank."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.learned.coefficients import Coefficients
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import ADARANK
from fb_merging.operations.matrices import Excluded, named
from fusionbench_core import FusionJob, implements, matrix


@implements(ADARANK)
class AdaRank(LearnedMethod):
    r"""Learn which singular components of each task matrix to add, and how much of them.

    With $U_t^l \mathrm{diag}(s_t^l) V_t^{l\top}$ the singular value decomposition of each task matrix:

    $$\theta^l = \theta_0^l + \sum_t \lambda_t^l\, U_t^l\, \mathrm{diag}(b_t^l \odot s_t^l)\, V_t^{l\top},
      \qquad b = [\mathrm{sigmoid}(m / T) > \tfrac12]$$

    Adam learns the mask's logits m and the coefficients $\lambda$ so that the entropy of the predictions on
    unlabelled data is small; the gradient by b goes to $\mathrm{sigmoid}(m / T)$ as it is (straight through).

    Notes:
        Tensors that are no matrix, and those that `exclude` names, have coefficients only. The authors mask
        the weights of attention and MLPs.
        `center="average"` is their CART variant: $\theta_0$ is the average of the models. They start it from
        `init_coefficient=2.3`, `initial_rank=0.16`.
        Logits start at 0.1, those beyond `initial_rank` at -0.1, as in the authors' code.
        100 steps are a moderate default for small models; the authors take 10000. Data as for `adamerging`.

    Reference:
        Lee et al., AdaRank: Adaptive Rank Pruning for Enhanced Model Merging, ICLR 2026, arXiv:2503.22178.
    """

    copies = (3.2, 3.5)  # also the two factors of each task matrix

    center: Literal["base", "average"] = Field(
        default="base", description="what task matrices are differences from, and are added to"
    )
    init_coefficient: float = Field(default=0.3, description="what all coefficients start from")
    initial_rank: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="fraction of the leading components kept at the beginning",
    )
    temperature: float = Field(default=10.0, gt=0, description="T: how slowly the mask's logits act")
    exclude: Excluded = ()

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        if self.center == "average":
            space = _around_average(space)
        return PrunedComponents(space, tuple(job.pool), self)


class PrunedComponents(Parameterization):
    """Task matrices without some of their singular components, times coefficients.

    Their factors are in memory: for T matrices of shape `(m, n)` and rank r, `(m, T r)` and `(T r, n)`.
    """

    def __init__(self, space: ParameterSpace, models: tuple[str, ...], method: AdaRank) -> None:
        self._temperature, self._models = method.temperature, models
        names = [
            name
            for name, base in space.base.items()
            if base.dim() == 2 and base.numel() and not named(name, method.exclude)
        ]
        rest = {name: each for name, each in space.vectors.items() if name not in names}
        self._plain = dataclasses.replace(space, vectors=rest, base={name: space.base[name] for name in rest})
        self._bases = {name: space.base[name] for name in names}
        self._coefficients = Coefficients(space, models, "tensor", method.init_coefficient)
        self._columns = {name: position for position, name in enumerate(space.base)}
        self._factors, logits = {}, {}
        for name in names:
            u, s, vh = torch.linalg.svd(space.vectors[name], full_matrices=False)
            # (T, m, r) -> (m, T r), so that one product adds up all tasks.
            self._factors[name] = u.transpose(0, 1).flatten(1), s, vh.flatten(0, 1)
            logits[name] = _first_logits(s, method.initial_rank)
        self._logits = logits
        masks = {f"mask/{name}": each for name, each in logits.items()}
        self.variables = {**self._coefficients.variables, **masks}

    def merged(self, step: int) -> dict[str, Tensor]:
        each = self._coefficients.each()
        rest = [self._columns[name] for name in self._plain.base]
        merged = self._plain.merged(each[:, rest]) if rest else {}
        for name, (left, s, right) in self._factors.items():
            scale = each[:, self._columns[name], None].to(s.dtype) * s * self._mask(name).to(s.dtype)
            merged[name] = self._bases[name] + (left * scale.flatten()) @ right
        return merged

    def details(self) -> dict[str, Any]:
        kept = [[int((row > 0).sum()) for row in each] for each in self._logits.values()]
        ranks = {}
        if kept:
            title = "Singular components kept"
            ranks["ranks"] = matrix(kept, rows=list(self._logits), columns=self._models, title=title)
        return {**self._coefficients.details(), **ranks}

    def _mask(self, name: str) -> Tensor:
        """`(tasks, r)`: zeros and ones, with the gradient of what they were rounded from."""
        soft = torch.sigmoid(self._logits[name] / self._temperature)
        return soft + ((soft > 0.5).to(soft.dtype) - soft).detach()


def _first_logits(s: Tensor, initial_rank: float) -> Tensor:
    logits = torch.full(s.shape, 0.1, dtype=torch.float32, device=s.device)
    logits[:, round(initial_rank * s.shape[1]) :] = -0.1
    return logits.requires_grad_()


def _around_average(space: ParameterSpace) -> ParameterSpace:
    """The same models as differences from their average."""
    shifts = {name: vectors.mean(0) for name, vectors in space.vectors.items()}
    return dataclasses.replace(
        space,
        base={name: base + shifts[name] for name, base in space.base.items()},
        vectors={name: vectors - shifts[name] for name, vectors in space.vectors.items()},
    )
