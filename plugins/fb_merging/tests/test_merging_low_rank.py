from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fb_merging.spectral.cart import Cart
from fb_merging.spectral.core_space import CoreSpace
from fb_merging.spectral.star import Star, truncate_and_rescale
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(matrix, k):
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :k] * s[:k] @ vh[:k]


def naive_cart(models, base, fraction, factor):
    result = dict(base)
    for name, tensor in base.items():
        if tensor.is_floating_point():
            each = [model[name].double().numpy() for model in models.values()]
            center = np.mean(each, axis=0)
            if tensor.ndim == 2 and tensor.numel():
                k = math.ceil(fraction * min(center.shape))
                center = center + factor * sum(low_rank(model - center, k) for model in each)
            result[name] = torch.as_tensor(center)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fraction", [0.08, 0.5])
def test_cart_follows_the_formula(zoo, assert_near, dtype, fraction):
    models, base = zoo(dtype)
    merged = fuse("cart", models, rank_fraction=fraction, scaling_factor=0.6)
    assert_near(merged, naive_cart(models, base, fraction, 0.6), list(models.values()))


def test_cart_with_all_directions_is_the_average(zoo, assert_near):
    models, _ = zoo(torch.float64)
    merged = fuse("cart", models, rank_fraction=1, scaling_factor=3)
    assert_near(merged, fuse("simple_average", models), list(models.values()))


def test_cart_from_a_random_sketch_comes_near_the_exact_one():
    factors = [
        0.4 ** torch.arange(30, dtype=torch.float64) * draw(50, 30, seed=t) @ draw(30, 40, seed=-t)
        for t in (1, 2, 3)
    ]
    models = [{"w": factor} for factor in factors]
    exact = fuse("cart", models)["w"]
    sketched = fuse("cart", models, factorization="randomized")["w"]
    torch.testing.assert_close(sketched, exact, rtol=0, atol=1e-6)
    assert Cart(factorization="randomized").capabilities.random


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eta", [0.4, 0.9, 1.0])
def test_star_follows_the_formula(zoo, matrix_reference, assert_near, dtype, eta):
    def cut(matrix):
        s = np.linalg.svd(matrix, compute_uv=False)
        if not s.any():
            return matrix
        k = next(k for k in range(1, len(s) + 1) if s[:k].sum() / s.sum() >= eta - 1e-12)
        return low_rank(matrix, k) * s.sum() / s[:k].sum()

    models, base = zoo(dtype)
    expected = matrix_reference(models, base, lambda deltas: sum(map(cut, deltas)) / len(deltas))
    assert_near(fuse("star", models, base, eta=eta), expected, [base, *models.values()])


@pytest.mark.parametrize(
    ("eta", "diagonal"), [(0.4, [10, 0, 0]), (0.6, [10, 0, 0]), (0.61, [20 / 3, 10 / 3, 0]), (1.0, [6, 3, 1])]
)
def test_star_keeps_the_nuclear_norm(eta, diagonal):
    found = truncate_and_rescale(torch.diag(torch.tensor([6.0, 3.0, 1.0])), eta)
    torch.testing.assert_close(found, torch.diag(torch.tensor(diagonal, dtype=torch.float64)))


def adapters(count: int = 3, rank: int = 2):
    """A base, models with an adapter of this rank added, and the adapters' factors."""
    base = {"w": draw(30, 20, seed=9)}
    factors = [(draw(30, rank, seed=t), draw(rank, 20, seed=100 + t)) for t in range(count)]
    return base, [{"w": base["w"] + b @ a} for b, a in factors], factors


@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_linear_merges_are_the_same_in_the_core_space(combine):
    base, models, factors = adapters()
    merged = fuse("core_space", models, base, combine=combine, isotropic=False)["w"]
    total = sum((b @ a for b, a in factors), start=torch.zeros(30, 20, dtype=torch.float64))
    torch.testing.assert_close(merged, base["w"] + total / (len(models) if combine == "mean" else 1))


def test_tsv_in_the_core_space_cuts_nothing_of_an_adapter():
    base, models, factors = adapters()
    merged = fuse("core_space", models, base, combine="tsv", isotropic=False, scaling_factor=0.5)["w"]
    # The published reference bases, from the stacked factors: U from [B1 B2 …], V from [A1; A2; …].
    left = torch.linalg.svd(torch.cat([b for b, _ in factors], 1), full_matrices=False).U
    right = torch.linalg.svd(torch.cat([a for _, a in factors]), full_matrices=False).Vh
    cores = [torch.linalg.svd(left.T @ b @ a @ right.T) for b, a in factors]

    def orthogonal(matrix):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u @ vh

    u = orthogonal(torch.cat([core.U[:, :2] for core in cores], 1))
    vh = orthogonal(torch.cat([core.Vh[:2] for core in cores]))
    expected = left @ (u * torch.cat([core.S[:2] for core in cores]) @ vh) @ right
    torch.testing.assert_close(merged, base["w"] + 0.5 * expected)


def test_an_isotropic_core_has_one_singular_value_for_all_directions_of_all_adapters():
    base, models, _ = adapters()
    for combine in ("mean", "sum", "tsv", "ties"):
        s = torch.linalg.svdvals(fuse("core_space", models, base, combine=combine)["w"] - base["w"])
        torch.testing.assert_close(s[:6], s[0].expand(6))
        assert float(s[6]) < 1e-12


def test_ties_merges_the_entries_of_the_cores():
    base = {"w": torch.zeros(3, 3)}
    first, second = torch.diag(torch.tensor([5.0, 2.0, 0.0])), torch.diag(torch.tensor([3.0, -1.0, 0.0]))
    parameters = {"combine": "ties", "isotropic": False, "density": 1.0}
    merged = fuse("core_space", [{"w": first}, {"w": second}], base, **parameters)["w"]
    torch.testing.assert_close(merged, torch.diag(torch.tensor([4.0, 2.0, 0.0])))


@pytest.mark.parametrize(("dtype", "parameters"), [(torch.float32, {}), (torch.bfloat16, {"rank": 2})])
def test_the_rounding_of_stored_weights_is_no_direction(dtype, parameters):
    base, models, _ = adapters()
    stored = [{"w": model["w"].to(dtype)} for model in models]
    narrow = {"w": base["w"].to(dtype)}
    # Written in fp64, so that the rounding of the result does not hide its rank.
    merged = fuse("core_space", stored, narrow, engine={"dtype": "float64"}, **parameters)["w"]
    update = merged - narrow["w"].double()
    assert int(torch.linalg.matrix_rank(update, rtol=1e-5)) == 6


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Cart, {"rank_fraction": 0}),
        (Cart, {"power_iterations": -1}),
        (Star, {"eta": 40}),
        (CoreSpace, {"rank": 0}),
        (CoreSpace, {"tolerance": 1}),
        (CoreSpace, {"combine": "slerp"}),
    ],
)
def test_wrong_parameters_are_refused(method, parameters):
    with pytest.raises(ValidationError):
        method(**parameters)
