from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.operations.svd import svd
from fb_merging.spectral.tsv_merging import TsvMerging, rank_of_each
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def naive_tsv(deltas):
    """The paper's algorithm with numpy; no task matrix is all 0 in one model only."""
    if not any(delta.any() for delta in deltas):
        return deltas[0]
    k = max(1, min(deltas[0].shape) // len(deltas))
    parts = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
    u = np.concatenate([u[:, :k] for u, _, _ in parts], axis=1)
    s = np.concatenate([s[:k] for _, s, _ in parts])
    v = np.concatenate([vh[:k] for _, _, vh in parts])

    def orthogonal(matrix):
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        return left @ right

    return orthogonal(u) @ np.diag(s) @ orthogonal(v)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_tsv_follows_the_formula(zoo, matrix_reference, assert_near, dtype, count):
    models, base = zoo(dtype, count=count)
    merged = fuse("tsv_merging", models, base, scaling_factor=0.7)
    assert_near(merged, matrix_reference(models, base, naive_tsv, 0.7), [base, *models.values()])


def test_tasks_in_orthogonal_spaces_are_kept_whole():
    base = {"w": torch.zeros(4, 4)}
    first, second = torch.zeros(4, 4), torch.zeros(4, 4)
    first[0, 1], first[1, 0] = 3.0, 2.0
    second[2, 2], second[3, 3] = 5.0, 1.0
    merged = fuse("tsv_merging", [{"w": first}, {"w": second}], base)["w"]
    torch.testing.assert_close(merged, first + second)


def test_more_tasks_than_directions_keep_one_each():
    assert rank_of_each(torch.zeros(3, 100), 8) == 1
    base = {"w": torch.zeros(2, 2)}
    models = [{"w": torch.diag(torch.tensor([float(t), 1.0]))} for t in range(1, 6)]
    assert torch.isfinite(fuse("tsv_merging", models, base)["w"]).all()


def test_excluded_matrices_are_averaged_like_the_other_tensors():
    base = {"embed.weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    models = [{"embed.weight": torch.eye(2) * k, "bias": torch.full((2,), k)} for k in (1.0, 3.0)]
    merged = fuse("tsv_merging", models, base, exclude=["embed*"], scaling_factor=0.5)
    assert merged["embed.weight"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert merged["bias"].tolist() == [1.0, 1.0]


def test_a_random_sketch_comes_near_the_exact_result_and_hangs_on_the_seed():
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(60, 40, generator=generator)}
    models = []
    for _ in range(4):
        factors = svd(torch.randn(60, 40, generator=generator))
        models.append({"w": base["w"] + ((factors.u * 0.5 ** torch.arange(40)) @ factors.vh).float()})
    exact = fuse("tsv_merging", models, base)["w"]
    sketched = fuse("tsv_merging", models, base, factorization="randomized")["w"]
    torch.testing.assert_close(sketched, exact, rtol=0, atol=1e-5)
    rough = TsvMerging(factorization="randomized", oversampling=0, power_iterations=0)
    one, same, other = (fuse(rough, models, base, seed=seed)["w"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert TsvMerging(factorization="randomized").capabilities.random
    assert not TsvMerging().capabilities.random


def test_threads_change_no_bit():
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(200, 150, generator=generator) for name in "abc"}
    models = [{k: v + torch.randn(v.shape, generator=generator) for k, v in base.items()} for _ in range(3)]
    one, three = (fuse("tsv_merging", models, base, engine={"threads": n}) for n in (1, 3))
    assert all(torch.equal(one[name], three[name]) for name in base)


@pytest.mark.parametrize("parameters", [{"oversampling": -1}, {"factorization": "lanczos"}, {"exclude": 1}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        TsvMerging(**parameters)
