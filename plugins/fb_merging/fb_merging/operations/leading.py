"""Leading singular triplets from eigenvectors of the Gram matrix, in a fraction of a decomposition's time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST = 128
"""Rows or columns below which a whole decomposition takes no longer."""

_GUARD = 16
"""Eigenvectors refined beyond those wanted: they keep apart what is wanted and what is not."""

_ROUNDS = 3
"""Corrections tried; the first one nearly always suffices."""

_SMALL = 1e-5
"""Size of the last correction: what is left of the error is about its square."""

_FLOOR_SINGLE, _FLOOR_DOUBLE = 1e-5, 1e-8
"""Least eigenvalue wanted, over the largest one, that the Gram matrix in fp32 and fp64 still knows well."""

_BLOCK = 256
"""Rows of a Gram matrix computed at a time."""

Triplets = tuple[Tensor, Tensor, Tensor]
r"""fp64 $U$ `(m, k)`, the descending singular values `(k,)` and $V^\top$ `(k, n)`."""


def gram(matrix: Tensor) -> Tensor:
    """The lower triangle of `matrix @ matrix.T`, `(m, m)`; what is above the blocks on its diagonal is 0."""
    rows = matrix.shape[0]
    product = matrix.new_zeros(rows, rows)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        product[start:stop, :stop] = matrix[start:stop] @ matrix[:stop].T
    return product


def leading_by_gram(matrix: Tensor, rank: int) -> Triplets | None:
    r"""Leading singular triplets, good in fp32 and far beyond, or None where that is not certain.

    The eigenvectors $V$ of $A^\top A$ come in fp32. With $\theta_j$ the Rayleigh quotient of $v_j$, the ones
    wanted are corrected in fp64 by

    $$v_j \mathrel{+}= \sum_i v_i\,\frac{v_i^\top (A^\top A - \theta_j) v_j}{\theta_j - \lambda_i}$$

    over the $i$ that are not wanted, and told apart by a small eigenproblem in fp64: the error of fp32 is
    squared, and it is known how large it was. Where most triplets are wanted, or small ones, all of it is
    done in fp64.

    Args:
        matrix: `(m, n)`, finite.
        rank: Triplets wanted, $k$.

    Returns:
        The triplets; None for a matrix that is small itself, or whose triplet $k$ is.

    Reference:
        Ogita and Aishima, Iterative refinement for symmetric eigenvalue decomposition, Japan Journal of
        Industrial and Applied Mathematics 2018.
    """
    if matrix.shape[0] < matrix.shape[1]:
        found = leading_by_gram(matrix.T, rank)
        return None if found is None else (found[2].T, found[1], found[0].T)
    columns = matrix.shape[1]
    if columns < _SMALLEST or not 0 < rank < columns:
        return None
    largest = max(abs(float(end)) for end in torch.aminmax(matrix))
    if not 0 < largest < math.inf:
        return None
    # A power of two, so that no bit is lost, and squares neither overflow nor vanish.
    scale = 2.0 ** math.frexp(largest)[1]
    scaled = matrix.to(torch.float64, copy=True).div_(scale)
    try:
        found = _in_single(scaled, rank) if 2 * (rank + _GUARD) < columns else None
        found = _in_double(scaled, rank) if found is None else found
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return None
    return None if found is None else (found[0], found[1] * scale, found[2])


def _in_single(matrix: Tensor, rank: int) -> Triplets | None:
    """By eigenvectors in fp32, corrected in fp64."""
    values, vectors = torch.linalg.eigh(gram(matrix.float().T))
    if float(values[-rank]) <= _FLOOR_SINGLE * float(values[-1]):
        return None
    wanted = rank + _GUARD
    others, basis = vectors[:, :-wanted], vectors[:, -wanted:].double()
    below = values[:-wanted].double().unsqueeze(1)
    for _ in range(_ROUNDS):
        mapped = matrix.T @ (matrix @ basis)
        quotients = (basis * mapped).sum(0) / basis.square().sum(0)
        # Guards may touch what is not wanted; as no more is asked of them, no more is divided by.
        apart = (quotients - below).clamp_(min=float(quotients[_GUARD] - below[-1]))
        residual = mapped.addcmul_(basis, quotients, value=-1).float()
        correction = (others.T @ residual).div_(apart.float())
        basis += (others @ correction).double()
        if float(correction[:, _GUARD:].abs().max()) < _SMALL:
            return _within(matrix, basis, rank)
    return None


def _within(matrix: Tensor, basis: Tensor, rank: int) -> Triplets:
    """The leading triplets of the matrix within a basis `(n, b)` of nearly orthonormal columns."""
    images = matrix @ basis
    root = torch.linalg.cholesky(basis.T @ basis)
    half = torch.linalg.solve_triangular(root, images.T @ images, upper=False)
    squares, turns = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.T, upper=False))
    turns = torch.linalg.solve_triangular(root.T, turns[:, -rank:].flip(1), upper=True)
    s = squares[-rank:].flip(0).sqrt()
    return (images @ turns) / s, s, (basis @ turns).T


def _in_double(matrix: Tensor, rank: int) -> Triplets | None:
    """By eigenvectors in fp64."""
    values, vectors = torch.linalg.eigh(gram(matrix.T))
    if float(values[-rank]) <= _FLOOR_DOUBLE * float(values[-1]):
        return None
    wanted = vectors[:, -rank:].flip(1)
    images = matrix @ wanted
    s = torch.linalg.vector_norm(images, dim=0)
    return images / s, s, wanted.T
