"""Merging in the core space of LoRA updates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import add_all, mean
from fb_merging.operations.matrices import MatrixMethod
from fb_merging.operations.svd import column_factors, svd
from fb_merging.operations.ties import ties
from fb_merging.spectral.iso_c import flatten_spectrum
from fb_merging.spectral.records import CORE_SPACE
from fb_merging.spectral.tsv_merging import merge_singular_vectors, rank_of_each
from fusionbench_core import TensorGroup, implements


@implements(CORE_SPACE)
class CoreSpace(MatrixMethod):
    r"""Merge updates of low rank within the small space that all of them together span.

    With $\Delta_t = \theta_t - \theta_0$, and $U$ and $V$ orthonormal bases of the columns and of the rows
    of all of them:

    $$\theta = \theta_0 + \alpha\,U \operatorname{merge}(M_1, \dots, M_T)\,V^\top, \qquad
      M_t = U^\top \Delta_t V$$

    `combine` says how the cores are merged; `isotropic` then makes all singular values of the result equal.

    Notes:
        Nothing is lost: $\Delta_t = U M_t V^\top$. Means and sums are the same in every space; `tsv` and
        `isotropic` divide by the dimensions of the core, not by those of the weight.
        The bases come from the task matrices, in order of their singular values; the authors take them from
        the factors $B_t$ and $A_t$. They span the same space, so only `ties`, which looks at entries, can
        tell.
        Weights that were stored with an adapter added have rounding errors of full rank. `tolerance` cuts
        those of fp32; for adapters added in half precision give the `rank`.
        Tensors that are no matrix get the mean task vector, which $\alpha$ scales too.
        The authors choose $\alpha$ on validation data.

    Reference:
        Panariello et al., Accurate and Efficient Low-Rank Model Merging in Core Space, NeurIPS 2025,
        arXiv:2509.17786.
    """

    combine: Literal["tsv", "ties", "mean", "sum"] = Field(
        default="tsv", description="how the cores are merged"
    )
    isotropic: bool = Field(default=True, description="make all singular values of the merged core equal")
    rank: int | None = Field(default=None, ge=1, description="rank of each adapter; none: found by tolerance")
    tolerance: float = Field(
        default=1e-5,
        ge=0,
        lt=1,
        description="directions weaker than this fraction of the strongest are noise",
    )
    density: float = Field(default=0.2, gt=0, le=1, description="fraction of the entries kept by ties")
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="mean", description="what becomes of the updates that have the sign elected by ties"
    )
    scaling_factor: float = Field(default=1.0, description="α: multiplies the merged task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return self.add_update(group, self._combine, scaling_factor=self.scaling_factor)

    def _combine(self, deltas: list[Tensor]) -> Tensor:
        left = self._basis(deltas)
        right = self._basis([delta.T for delta in deltas])
        merged = self._merge_cores([left.T @ delta.double() @ right for delta in deltas])
        if self.isotropic:
            merged = flatten_spectrum(merged)
        return left @ merged @ right.T

    def _basis(self, matrices: list[Tensor]) -> Tensor:
        columns, s = column_factors(matrices)
        if self.rank is not None:
            return columns[:, : self.rank * len(matrices)]
        return columns[:, : int((s >= self.tolerance * s[0]).sum())]

    def _merge_cores(self, cores: list[Tensor]) -> Tensor:
        if self.combine == "tsv":
            rank = rank_of_each(cores[0], len(cores))
            return merge_singular_vectors(svd(core).top(rank) for core in cores)
        if self.combine == "ties":
            return ties(cores, self.density, self.merge_func)
        return mean(cores) if self.combine == "mean" else add_all(cores)
