from __future__ import annotations

import math

import pytest
import torch
from fb_merging.operations.svd import (
    column_basis,
    column_factors,
    leading,
    polar,
    polar_and_singular_values,
    randomized_svd,
    svd,
)

from fusionbench_core import MethodError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def falling(m: int, n: int, decay: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with singular values 1, 0.7, 0.49, …, and those."""
    k = min(m, n)
    s = decay ** torch.arange(k, dtype=torch.float64)
    u, v = torch.linalg.qr(draw(m, k)).Q, torch.linalg.qr(draw(n, k, seed=1)).Q
    return (u * s) @ v.T, s


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 9), (9, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factors_give_the_matrix_back(shape, dtype):
    matrix = draw(*shape).to(dtype)
    factors = svd(matrix)
    assert factors.s.dtype == torch.float64
    torch.testing.assert_close(factors.product(), matrix.double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(factors.top(2).s, torch.linalg.svdvals(matrix.double())[:2])


def test_the_null_space_is_left_out():
    matrix = draw(8, 2) @ draw(2, 6, seed=1)
    assert [len(part) for part in (svd(matrix).s, svd(matrix).vh)] == [2, 2]
    assert svd(torch.zeros(3, 4)).product().tolist() == torch.zeros(3, 4).tolist()
    isometry = polar(matrix)
    expected = torch.tensor([1.0, 1, 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(isometry), expected)


def test_polar_is_the_nearest_orthogonal_matrix():
    # Known in closed form for a symmetric positive definite matrix times a rotation: the rotation.
    angle = 0.3
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    torch.testing.assert_close(polar(turn.double() @ stretch.double()), turn.double())


def test_a_matrix_is_decomposed_where_no_eigenvalues_are_found(monkeypatch):
    def fail(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    matrix = draw(4, 6)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(polar(matrix), u @ vh)


def test_a_matrix_with_nan_is_an_error_and_not_a_result():
    with pytest.raises(MethodError, match="did not converge"):
        svd(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))


@pytest.mark.parametrize("shape", [(300, 160), (160, 300)], ids=["tall", "wide"])
@pytest.mark.parametrize("rank", [20, 120])
@pytest.mark.parametrize("spectrum", ["flat", "falling"])
@pytest.mark.parametrize("scale", [1e-30, 1.0], ids=["tiny", "one"])
def test_leading_triplets_for_fp32_are_those_of_the_decomposition(shape, rank, spectrum, scale):
    matrix = draw(*shape) if spectrum == "flat" else falling(*shape, decay=0.97)[0]
    matrix = (matrix * scale).float()
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    expected = (u[:, :rank] * s[:rank]) @ vh[:rank]
    found = leading(matrix, rank, torch.float32)
    torch.testing.assert_close(found.s, s[:rank], rtol=1e-12, atol=0)
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(found.u.T @ found.u, identity, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.vh @ found.vh.T, identity, rtol=0, atol=1e-8)
    assert (found.product() - expected).norm() < 1e-8 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_triplets_that_the_gram_matrix_does_not_know_come_from_the_decomposition(dtype):
    matrix, s = falling(200, 150, decay=0.8)
    found = leading(matrix, 100, dtype)
    torch.testing.assert_close(found.s, s[:100], rtol=1e-4, atol=0)
    assert len(leading(draw(200, 5) @ draw(5, 150), 40, dtype).s) == 5
    assert len(leading(torch.zeros(200, 150), 40, dtype).s) == 0
    assert len(leading(matrix, 0, dtype).s) == 0
    assert len(leading(torch.eye(150), 40, dtype).s) == 40


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_the_random_sketch_finds_the_leading_triplets_of_a_falling_spectrum(shape):
    matrix, s = falling(*shape)
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    found = randomized_svd(matrix, 5, uniform, oversampling=8, power_iterations=2)
    assert found.u.shape == (shape[0], 5)
    torch.testing.assert_close(found.s, s[:5], rtol=1e-9, atol=0)
    # The best rank-5 approximation is off by the sixth singular value.
    error = float(torch.linalg.matrix_norm(matrix - found.product(), 2))
    assert error == pytest.approx(float(s[5]), rel=1e-6)


def test_the_error_of_a_flat_spectrum_is_within_the_bound():
    matrix = torch.linalg.qr(draw(40, 40)).Q
    k, p, q = 4, 6, 1
    found = randomized_svd(
        matrix,
        k,
        torch.rand(40, 40, generator=torch.Generator().manual_seed(0)),
        oversampling=p,
        power_iterations=q,
    )
    bound = (1 + math.sqrt(k / (p - 1)) + math.e * math.sqrt(k + p) / p * math.sqrt(40 - k)) ** (
        1 / (2 * q + 1)
    )
    assert 1 <= float(torch.linalg.matrix_norm(matrix - found.product(), 2)) + 1e-12 <= bound


def test_a_sketch_of_a_tiny_or_zero_matrix_has_no_more_triplets_than_it():
    uniform = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    matrix = draw(2, 3)
    torch.testing.assert_close(randomized_svd(matrix, 10, uniform).product(), matrix)
    assert len(randomized_svd(torch.zeros(2, 3), 1, uniform).s) == 0


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_the_column_basis_spans_all_columns(shape):
    matrices = [draw(*shape), draw(*shape, seed=1) * 10]
    basis, s = column_factors(matrices)
    joined = torch.cat(matrices, dim=1)
    torch.testing.assert_close(basis @ (basis.T @ joined), joined)
    torch.testing.assert_close(s, torch.linalg.svdvals(joined))
    assert torch.equal(basis, column_basis(matrices))


@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 7), (5, 40), (40, 5), (0, 3)], ids=lambda shape: f"{shape[0]} x {shape[1]}"
)
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-9, 0.0], ids=lambda value: f"smallest {value}")
def test_the_polar_factor_is_that_of_the_decomposition_however_it_is_conditioned(shape, smallest):
    m, n = shape
    rank = min(m, n)
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(m, rank, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(n, rank, generator=generator, dtype=torch.float64))
    s = torch.linspace(1.0, smallest, rank, dtype=torch.float64) if rank > 1 else torch.ones(rank).double()
    kept = s > 0
    isometry, found = polar_and_singular_values((u * s) @ v.T)
    torch.testing.assert_close(found.sort().values, s[kept].sort().values, rtol=1e-6, atol=1e-14)
    torch.testing.assert_close(isometry, u[:, kept] @ v[:, kept].T, rtol=0, atol=1e-6)


def test_a_matrix_of_zeros_has_no_polar_factor():
    isometry, s = polar_and_singular_values(torch.zeros(3, 5))
    assert torch.equal(isometry, torch.zeros(3, 5, dtype=torch.float64))
    assert not len(s)
