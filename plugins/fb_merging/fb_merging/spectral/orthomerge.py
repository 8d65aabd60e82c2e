"""OrthoMerge: rotations merged on the orthogonal group, the rest by task arithmetic."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import add_all
from fb_merging.operations.matrices import MatrixMethod, is_matrix
from fb_merging.operations.svd import polar, svd
from fb_merging.spectral.records import ORTHOMERGE
from fusionbench_core import TensorGroup, implements

Excluded = tuple[str, ...]


@implements(ORTHOMERGE)
class OrthoMerge(MatrixMethod):
    r"""Split each model into a rotation of the base's weights and a rest; merge rotations as rotations.

    For a matrix, with $R_t$ the orthogonal matrix that brings $\theta_0 R_t$ nearest to $\theta_t$
    (Procrustes) and $A_t = (R_t + I)^{-1} (R_t - I)$ its skew-symmetric Cayley transform:

    $$\theta = \theta_0 R + \lambda \sum_t (\theta_t - \theta_0 R_t), \qquad R = (I - A)^{-1} (I + A)$$

    $$A = \frac{\tfrac1T \sum_t \|A_t\|_F}{\|\sum_t A_t\|_F} \sum_t A_t$$

    Notes:
        The mean of the $A_t$, stretched to their mean length. $\lambda$ is the authors' for five models.
        $R_t$ is the orthogonal factor of $\theta_0^\top \theta_t$. Where that has a null space, of weights
        with fewer rows than columns say, it turns no more than it must; the authors' code takes whatever the
        factorisation gives. A half turn has no Cayley transform; it stays in the rest.
        Systems are as large as the weight has columns, or all models together have rows. Tensors that are no
        matrix, and those named in `exclude`, get the sum of the task vectors, times $\lambda$.

    Reference:
        Yang et al., Orthogonal Model Merging, 2026, arXiv:2602.05943.
    """

    scaling_factor: float = Field(default=0.2, description="λ: multiplies what is no rotation")
    exclude: Excluded = Field(
        default=(), description="glob patterns of matrices to merge by task arithmetic, e.g. of embeddings"
    )

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        declared = super().scratch(name, shape, models)
        if len(shape) != 2 or 0 in shape:
            return declared
        # Of a wide matrix the systems, which are square, are larger than it is.
        m, n = shape
        return declared * max(1.0, min(n, (models + 1) * m) ** 2 / (m * n))

    def merge(self, group: TensorGroup) -> Tensor:
        deltas = group.deltas
        if not any(bool(delta.any()) for delta in deltas):
            return group.base
        if not is_matrix(group, self.exclude):
            return torch.add(group.base, add_all(deltas), alpha=self.scaling_factor)
        base, n = group.base, group.shape[1]
        if (len(deltas) + 1) * len(base) >= n:
            return self._merge(base.double(), deltas).to(base.dtype)
        # Rotations leave alone what no row leads to: in a basis of the rows, the systems are small.
        rows = torch.linalg.qr(torch.cat([base, *deltas]).double().T).Q
        merged = self._merge(base.double() @ rows, [delta.double() @ rows for delta in deltas])
        return (merged @ rows.T).to(base.dtype)

    def _merge(self, base: Tensor, deltas: list[Tensor]) -> Tensor:
        """fp64 `(m, n)`: the matrices turned and added up."""
        turns = [cayley_inverse(procrustes(base, base + delta)) for delta in deltas]
        merged = base @ cayley(mean_turn(turns))
        for delta, turn in zip(deltas, turns):
            merged.add_(base + delta - base @ cayley(turn), alpha=self.scaling_factor)
        return merged


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    r"""fp64 `(n, n)`: the orthogonal $R$ for which $\|S R - T\|_F$ is least, the nearest of them to $I$."""
    factors = svd(source.T @ target)
    found = factors.u @ factors.vh
    if len(factors.s) == len(found):
        return found
    eye = torch.eye(len(found), dtype=found.dtype)
    return found + polar((eye - factors.u @ factors.u.T) @ (eye - factors.vh.T @ factors.vh))


def cayley(skew: Tensor) -> Tensor:
    """The orthogonal matrix of a skew-symmetric one."""
    eye = torch.eye(len(skew), dtype=skew.dtype)
    return torch.linalg.solve(eye - skew, eye + skew)


def cayley_inverse(rotation: Tensor) -> Tensor:
    """The skew-symmetric matrix of an orthogonal one, without its half turns."""
    eye = torch.eye(len(rotation), dtype=rotation.dtype)
    found, singular = torch.linalg.solve_ex(rotation + eye, rotation - eye)
    if bool(singular) or not bool(torch.isfinite(found).all()) or float(found.abs().max()) > _HALF_TURN:
        found = torch.linalg.pinv(rotation + eye, rtol=2 / _HALF_TURN) @ (rotation - eye)
    return (found - found.T) / 2


def mean_turn(turns: list[Tensor]) -> Tensor:
    """Their mean, stretched to their mean Frobenius norm; 0 where they cancel."""
    total = add_all(turns)
    lengths = [float(torch.linalg.matrix_norm(turn)) for turn in turns]
    length = float(torch.linalg.matrix_norm(total))
    if length <= _CANCELLED * sum(lengths):
        return torch.zeros_like(total)
    return total * (sum(lengths) / len(lengths) / length)


_HALF_TURN = 1e6
"""Entries of a Cayley transform beyond this are a turn by 180 degrees, up to rounding."""

_CANCELLED = 1e-12
"""A sum shorter than this part of its summands has no direction but that of rounding errors."""
