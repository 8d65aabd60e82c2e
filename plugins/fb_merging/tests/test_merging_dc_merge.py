from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.spectral.dc_merge import DcMerge
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def naive(deltas, rank=None, smoothing="none", rho=5.0, density=0.001):
    """The authors' procedure with numpy; no task matrix is all 0 in one model only."""
    if not any(delta.any() for delta in deltas):
        return deltas[0]
    k = rank or max(1, min(deltas[0].shape) // len(deltas))
    tasks = []
    for delta in deltas:
        u, s, vh = np.linalg.svd(delta, full_matrices=False)
        u, s, vh = u[:, :k], s[:k], vh[:k]
        if smoothing != "none":
            first = 1.0 if smoothing == "average" else min(rho, s[0] / s[-1])
            share = np.linspace(first, 1.0, k)
            s = s.sum() * share / share.sum()
        tasks.append((u, s, vh))

    def whitened(matrix):
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        return left @ right

    cover_u = whitened(np.concatenate([u for u, _, _ in tasks], axis=1))
    cover_v = whitened(np.concatenate([vh for _, _, vh in tasks]))
    cores = [cover_u.T @ (u * s) @ vh @ cover_v.T for u, s, vh in tasks]
    trimmed = []
    for core in cores:
        bound = np.sort(np.abs(core), axis=None)[-max(1, round(density * core.size))]
        trimmed.append(np.where(np.abs(core) >= bound, core, 0))
    sign = np.sign(sum(trimmed))
    agreeing = [np.where(np.sign(core) == sign, core, 0) * (sign != 0) for core in trimmed]
    count = sum((core != 0).astype(float) for core in agreeing)
    merged = sum(agreeing) / np.maximum(count, 1)
    mask = np.kron(np.eye(len(deltas)), np.ones((k, k)))
    return cover_u @ (merged * mask) @ cover_v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "parameters",
    [
        {"density": 0.5},
        {"rank": 1, "density": 1.0},
        {"rank": 1, "smoothing": "average", "density": 0.3},
        {"smoothing": "linear", "density": 1.0},
    ],
)
def test_dc_merge_follows_the_authors_procedure(zoo, matrix_reference, assert_near, dtype, parameters):
    models, base = zoo(dtype, count=2)
    merged = fuse("dc_merge", models, base, scaling_factor=0.7, **parameters)
    expected = matrix_reference(models, base, lambda deltas: naive(deltas, **parameters), 0.7)
    assert_near(merged, expected, [base, *models.values()])


def test_tasks_in_orthogonal_spaces_are_kept_whole():
    base = {"w": torch.zeros(4, 4)}
    first, second = torch.zeros(4, 4), torch.zeros(4, 4)
    first[0, 1], first[1, 0] = 3.0, 2.0
    second[2, 2], second[3, 3] = 5.0, 1.0
    merged = fuse("dc_merge", [{"w": first}, {"w": second}], base, density=1.0)["w"]
    torch.testing.assert_close(merged, first + second)


def test_smoothing_evens_out_singular_values_and_keeps_their_sum():
    base, model = {"w": torch.zeros(3, 3)}, {"w": torch.diag(torch.tensor([6.0, 2.0, 1.0]))}
    found = {
        kind: fuse("dc_merge", [model], base, smoothing=kind, rho=3, density=1.0)["w"].diagonal()
        for kind in ("none", "average", "linear")
    }
    assert found["none"].tolist() == pytest.approx([6, 2, 1])
    assert found["average"].tolist() == pytest.approx([3, 3, 3])
    assert found["linear"].tolist() == pytest.approx([4.5, 3, 1.5])


def test_a_random_sketch_comes_near_the_exact_result():
    generator = torch.Generator().manual_seed(0)
    models = []
    for _ in range(3):
        u, _, vh = torch.linalg.svd(torch.randn(40, 30, generator=generator), full_matrices=False)
        models.append({"w": (u * 0.4 ** torch.arange(30)) @ vh})
    base = {"w": torch.zeros(40, 30)}
    exact = fuse("dc_merge", models, base, rank=3, density=1.0)["w"]
    sketched = fuse("dc_merge", models, base, rank=3, density=1.0, factorization="randomized")["w"]
    assert (sketched - exact).norm() < 1e-4 * exact.norm()
    assert DcMerge(factorization="randomized").capabilities.random


@pytest.mark.parametrize("parameters", [{"rho": 0.5}, {"rank": 0}, {"smoothing": "square"}, {"density": 0}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        DcMerge(**parameters)
