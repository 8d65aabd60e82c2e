from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.spectral.iso_cts import IsoCts, task_dimensions

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def svd(matrix):
    return np.linalg.svd(matrix, full_matrices=False)


def naive_iso_c(deltas):
    u, s, vh = svd(sum(deltas))
    return s.mean() * (u @ vh)


def naive_iso_cts(deltas, fraction):
    """The authors' algorithm with numpy, for matrices of full rank."""
    if not any(delta.any() for delta in deltas):
        return deltas[0]
    r, tasks = min(deltas[0].shape), len(deltas)
    each = min(round((r - int(r * fraction)) / tasks), r // tasks)
    u, s, vh = (part for part in svd(sum(deltas)))
    u, s, vh = u[:, : r - each * tasks], s[: r - each * tasks], vh[: r - each * tasks]
    us, ss, vhs = [], [], []
    for delta in deltas:
        own = svd(delta - u @ u.T @ delta)
        us.append(own[0][:, :each])
        ss.append(own[1][:each])
        vhs.append(own[2][:each])

    def orthogonal(matrix):
        left, _, right = svd(matrix)
        return left @ right

    sigma = np.concatenate([*ss, s]).mean()
    return sigma * orthogonal(np.concatenate([*us, u], axis=1)) @ orthogonal(np.concatenate([*vhs, vh]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3])
def test_iso_c_follows_the_formula(zoo, matrix_reference, assert_near, dtype, count):
    models, base = zoo(dtype, count=count)
    merged = fuse("iso_c", models, base, scaling_factor=0.8)
    assert_near(merged, matrix_reference(models, base, naive_iso_c, 0.8), [base, *models.values()])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 1.0])
def test_iso_cts_follows_the_formula(zoo, matrix_reference, assert_near, dtype, fraction):
    models, base = zoo(dtype, count=2)
    merged = fuse("iso_cts", models, base, common_space_fraction=fraction)
    expected = matrix_reference(models, base, lambda deltas: naive_iso_cts(deltas, fraction))
    assert_near(merged, expected, [base, *models.values()])


def test_all_singular_values_become_their_mean():
    base = {"w": torch.zeros(2, 2)}
    merged = fuse(
        "iso_c", [{"w": torch.diag(torch.tensor([4.0, 0.0]))}, {"w": torch.tensor([[0.0, 0], [0, -2]])}], base
    )
    torch.testing.assert_close(merged["w"], torch.diag(torch.tensor([3.0, -3.0])))


def test_directions_that_no_task_moves_stay_as_they_are():
    update = torch.outer(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([3.0, 4.0]))
    for method in ("iso_c", "iso_cts"):
        merged = fuse(method, [{"w": update}], {"w": torch.zeros(3, 2)})["w"]
        torch.testing.assert_close(merged, update)


def test_common_directions_only_is_iso_c(zoo, assert_near):
    models, base = zoo(torch.float64)
    merged = fuse("iso_cts", models, base, common_space_fraction=1)
    assert_near(merged, fuse("iso_c", models, base), [base, *models.values()])


@pytest.mark.parametrize(
    ("rank", "tasks", "fraction", "each"),
    # 768: floor(614.4) = 614 are common, 154 / 8 = 19.25. 5 of 3 tasks: 5 / 3 = 1.67 would be 6 in all.
    [(768, 8, 0.8, 19), (5, 3, 0.8, 0), (5, 3, 0.0, 1), (3, 8, 0.0, 0), (10, 2, 1.0, 0)],
)
def test_the_tasks_never_get_more_directions_than_there_are(rank, tasks, fraction, each):
    assert task_dimensions(rank, tasks, fraction) == each


def test_directions_of_tasks_from_a_random_sketch_come_near_the_exact_ones():
    generator = torch.Generator().manual_seed(0)

    def falling() -> torch.Tensor:
        left, _, right = torch.linalg.svd(torch.randn(50, 40, generator=generator), full_matrices=False)
        return (left * 0.5 ** torch.arange(40)) @ right

    base = {"w": torch.zeros(50, 40)}
    models = [{"w": falling()} for _ in range(3)]
    exact = fuse("iso_cts", models, base, common_space_fraction=0.7)["w"]
    sketched = fuse("iso_cts", models, base, common_space_fraction=0.7, factorization="randomized")["w"]
    assert (sketched - exact).norm() < 0.01 * exact.norm()
    assert IsoCts(factorization="randomized").capabilities.random
    assert not IsoCts().capabilities.random
