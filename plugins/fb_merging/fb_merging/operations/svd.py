"""Factorisations of matrices: exact and randomised, always with fp64 factors.

fp32 weights in, fp64 factors out: what methods do with the smallest singular values then rests on the
weights, not on the rounding of the factorisation, and costs little more time than fp32 does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.leading import gram, leading_by_gram
from fb_merging.operations.vectors import norm
from fusionbench_core import Capabilities, MethodError

Factorization = Annotated[
    Literal["exact", "randomized"],
    Field(description="exact, or randomized: the leading singular triplets from a random sketch, faster"),
]
Oversampling = Annotated[
    int, Field(ge=0, description="columns of the random sketch beyond the triplets wanted (randomized)")
]
PowerIterations = Annotated[
    int, Field(ge=0, description="power iterations that sharpen the random sketch (randomized)")
]


_CONDITION = 3e4
"""Condition number up to which a Gram matrix in fp64 gives results that are good in fp32."""


@dataclass(frozen=True)
class Factors:
    r"""$A = U\,\mathrm{diag}(s)\,V^\top$ without the null space: all $r$ singular values are positive.

    Attributes:
        u: fp64 `(m, r)`, orthonormal columns.
        s: fp64 `(r,)`, descending.
        vh: fp64 `(r, n)`, orthonormal rows.
    """

    u: Tensor
    s: Tensor
    vh: Tensor

    def top(self, rank: int) -> Factors:
        """The leading triplets, `rank` of them at most."""
        if rank >= len(self.s):
            return self
        # Copies: a view of a few triplets would keep all of them in memory.
        return Factors(self.u[:, :rank].clone(), self.s[:rank].clone(), self.vh[:rank].clone())

    def product(self) -> Tensor:
        """fp64 `(m, n)`."""
        return (self.u * self.s) @ self.vh


def rank_holding(s: Tensor, energy: float) -> int:
    """How many descending singular values `(r,)` hold a fraction `energy` of the sum of their squares."""
    held = s.square().cumsum(0)
    return int((held < energy * held[-1]).sum()) + 1 if len(s) else 0


def svd(matrix: Tensor) -> Factors:
    """The compact singular value decomposition of an `(m, n)` matrix.

    Singular values below `max(m, n) * eps * s[0]` are rounding errors of this computation, their vectors
    are arbitrary: they are left out, so the zero matrix has no triplet at all.

    Args:
        matrix: `(m, n)`.

    Raises:
        MethodError: if it does not converge.
    """
    rows, columns = matrix.shape
    try:
        if rows < columns:  # LAPACK takes three times as long for a wide matrix as for its transpose.
            v, s, uh = torch.linalg.svd(matrix.double().T, full_matrices=False)
            u, vh = uh.T, v.T
        else:
            u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise _failed(matrix, error) from error
    largest = float(s[0]) if len(s) else 0.0
    rank = int((s > max(matrix.shape) * torch.finfo(s.dtype).eps * largest).sum())
    return Factors(u, s, vh).top(rank)


def leading(matrix: Tensor, rank: int, dtype: torch.dtype) -> Factors:
    """The `rank` leading triplets of an `(m, n)` matrix: all it has, where it has fewer.

    Args:
        matrix: `(m, n)`.
        rank: Triplets wanted.
        dtype: What will be rounded to: unless it is fp64, the triplets are good to about half of the digits
            of fp64, which takes a half to an eighth of the time.

    Raises:
        MethodError: if the decomposition does not converge.
    """
    found = None if dtype == torch.float64 else leading_by_gram(matrix, rank)
    return svd(matrix).top(rank) if found is None else Factors(*found)


def rounding_of_differences(base: Tensor) -> float:
    r"""Spectral norm of the rounding errors of $x - \theta_0$, for matrices $x$ near the base `(m, n)`.

    Errors of $\epsilon\,|\theta_0|$ in each entry, with random signs, add up to a matrix of about this norm.
    """
    m, n = base.shape
    return torch.finfo(base.dtype).eps * norm(base) * (m**-0.5 + n**-0.5)


def randomized_svd(
    matrix: Tensor, rank: int, uniform: Tensor, *, oversampling: int = 10, power_iterations: int = 2
) -> Factors:
    r"""Approximate leading triplets of an `(m, n)` matrix, from its products with few random vectors.

    With $k$ triplets wanted, $p$ vectors more and $q$ power iterations, the expected spectral error of the
    sketch is at most (Theorems 10.6 and 9.2 of the reference, for Gaussian vectors; ours are uniform)

    $$\left(1 + \sqrt{\tfrac{k}{p-1}} + \tfrac{e\sqrt{k+p}}{p}\sqrt{\min(m,n)-k}\right)^{1/(2q+1)}
      \sigma_{k+1}$$

    where an exact decomposition has $\sigma_{k+1}$: good where the spectrum falls, poor where it is flat.

    Args:
        matrix: `(m, n)`.
        rank: Triplets wanted.
        uniform: Random numbers in [0, 1), `(m, n)`; only the first rows are looked at.
        oversampling: $p$.
        power_iterations: $q$.

    Reference:
        Halko et al., Finding structure with randomness, SIAM Review 2011, arXiv:0909.4061.
    """
    wide = matrix.double()
    columns = min(rank + oversampling, *matrix.shape)
    sketch = _orthonormal(wide @ uniform[:columns].double().mul(2).sub(1).T)
    for _ in range(power_iterations):
        sketch = _orthonormal(wide @ _orthonormal(wide.T @ sketch))
    small = svd(sketch.T @ wide).top(rank)
    return Factors(sketch @ small.u, small.s, small.vh)


class FactorizationSettings(Protocol):
    """The parameters of a method that may use a random sketch."""

    @property
    def factorization(self) -> Literal["exact", "randomized"]: ...
    @property
    def oversampling(self) -> int: ...
    @property
    def power_iterations(self) -> int: ...


def leading_triplets(
    matrix: Tensor,
    rank: int,
    settings: FactorizationSettings,
    draw: Callable[[], Tensor],
    dtype: torch.dtype | None = None,
) -> Factors:
    """The leading triplets of an `(m, n)` matrix, in the way that a method's parameters ask for.

    Args:
        matrix: `(m, n)`.
        rank: Triplets wanted.
        settings: The method.
        draw: Gives random numbers in [0, 1), `(m, n)`; called only if `factorization` is randomized.
        dtype: What the result will be rounded to; that of the matrix by default.
    """
    if settings.factorization == "exact":
        return leading(matrix, rank, dtype or matrix.dtype)
    return randomized_svd(
        matrix,
        rank,
        draw(),
        oversampling=settings.oversampling,
        power_iterations=settings.power_iterations,
    )


def sketching(capabilities: Capabilities, settings: FactorizationSettings) -> Capabilities:
    """Capabilities of a method with these settings: a random sketch makes the result depend on the seed."""
    return dataclasses.replace(capabilities, random=settings.factorization == "randomized")


def polar(matrix: Tensor) -> Tensor:
    r"""The nearest (partial) isometry $U V^\top$: all singular values 1, the null space left alone."""
    return polar_and_singular_values(matrix)[0]


def polar_and_singular_values(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""$U V^\top$, fp64 `(m, n)`, and the singular values `(r,)` that are not rounding errors, in any order.

    Args:
        matrix: `(m, n)`.

    Raises:
        MethodError: if it does not converge.
    """
    parts, s = polar_parts(matrix)
    return (parts[0] if len(parts) == 1 else parts[0] @ parts[1]), s


def polar_parts(matrix: Tensor) -> tuple[list[Tensor], Tensor]:
    r"""Matrices whose product is $U V^\top$, in fp64, and the singular values `(r,)`, in any order.

    What is to be multiplied further is so in the order that takes the least time.

    From the eigenvalues of the smaller Gram matrix, $(A A^\top)^{-1/2} A$, which takes half to a quarter of
    the time of a singular value decomposition. The errors grow with the square of the condition number: above
    $3 \cdot 10^4$ they would exceed the rounding of a result in fp32, and the matrix is decomposed, as it is
    where no eigenvalues are found.

    Args:
        matrix: `(m, n)`.

    Raises:
        MethodError: if it does not converge.
    """
    wide = matrix.double()
    if wide.shape[0] > wide.shape[1]:
        parts, s = polar_parts(wide.T)
        return [part.T for part in reversed(parts)], s
    try:
        squares, vectors = torch.linalg.eigh(gram(wide))
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        squares = vectors = wide.new_zeros(0)
    if not len(squares) or float(squares[0]) * _CONDITION**2 <= float(squares[-1]):
        factors = svd(wide)
        return [factors.u, factors.vh], factors.s
    s = squares.sqrt()
    return [(vectors / s) @ vectors.T, wide], s


def column_basis(matrices: Sequence[Tensor]) -> Tensor:
    """Left singular vectors of all matrices put side by side, fp64 `(m, r)`.

    Raises:
        MethodError: if the decomposition does not converge.
    """
    return column_factors(matrices)[0]


def column_factors(matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Left singular vectors `(m, r)` and singular values `(r,)` of all matrices put side by side."""
    # The triangular factor of the transpose has the same ones, and is never wider than it is tall.
    factors = svd(_triangle(matrices).T)
    return factors.u, factors.s


def _triangle(matrices: Sequence[Tensor]) -> Tensor:
    """The triangular factor of the transpose of all matrices side by side, found one matrix at a time."""
    found = torch.linalg.qr(matrices[0].double().T, mode="r").R
    for matrix in matrices[1:]:
        found = torch.linalg.qr(torch.cat([found, matrix.double().T]), mode="r").R
    return found


def _orthonormal(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns).Q


def _failed(matrix: Tensor, error: Exception) -> MethodError:
    return MethodError(
        f"the singular value decomposition of a matrix of shape {list(matrix.shape)} did not converge",
        why=str(error).splitlines()[0],
        fix="average this tensor instead: name it in `exclude`",
    )
