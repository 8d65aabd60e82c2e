"""Magnitude pruning of the difference from the base."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from fb_merging.compression.pruning import Pruning
from fb_merging.compression.records import MAGNITUDE_DIFF_PRUNING
from fb_merging.operations.matrices import is_matrix
from fusionbench_core import TensorGroup, implements


@implements(MAGNITUDE_DIFF_PRUNING)
class MagnitudeDiffPruning(Pruning):
    r"""Keep the entries of largest magnitude of each task matrix of one model; the others are the base's.

    With $\tau = \theta - \theta_0$:

    $$\theta' = \theta_0 + m \odot \tau, \qquad m_{ij} = 1[\,|\tau_{ij}| \text{ is among the } \rho\,d
      \text{ largest of its row's } d\,]$$

    Notes:
        `keep="smallest"` drops the largest updates, to see what they are worth. `rescale` divides what is
        kept by the density, as random dropping does; by n / m with `n` and `m`. Tensors that are no matrix,
        and those named in `exclude`, stay the model's.
        It is the baseline that DARE was compared with. FusionBench calls the density 1 - `prune_ratio`.

    Reference:
        Yu et al., Language Models are Super Mario, ICML 2024, arXiv:2311.03099.
    """

    keep: Literal["largest", "smallest"] = Field(default="largest", description="which updates are kept")
    rescale: bool = Field(default=False, description="divide the kept updates by the density")

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return group.models[0]
        (delta,) = group.deltas
        score = delta.abs() if self.keep == "largest" else -delta.abs()
        density = self.density if self.n is None or self.m is None else self.n / self.m
        return group.base + self.prune(delta, score) / (density if self.rescale else 1.0)
