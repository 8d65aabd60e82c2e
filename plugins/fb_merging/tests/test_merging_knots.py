from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.operations.ties import ties
from fb_merging.spectral.knots import Knots
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def naive_ties(tensors, density, merge_func):
    kept = []
    for tensor in tensors:
        k = max(1, round(density * tensor.size))
        bound = np.sort(np.abs(tensor), axis=None)[-k]
        kept.append(np.where(np.abs(tensor) >= bound, tensor, 0))
    stack = np.stack(kept)
    sign = np.sign(stack.sum(0))
    agreeing = np.where(np.sign(stack) == sign, stack, 0)
    if merge_func == "max":
        return sign * np.abs(agreeing).max(0)
    total = agreeing.sum(0)
    return total / np.maximum((agreeing != 0).sum(0), 1) if merge_func == "mean" else total


def naive_knots(deltas, density, merge_func):
    if not any(delta.any() for delta in deltas):
        return deltas[0]
    u, s, vh = np.linalg.svd(np.concatenate(deltas, axis=1), full_matrices=False)
    aligned = np.split(s[:, None] * vh, len(deltas), axis=1)
    return u @ naive_ties(aligned, density, merge_func)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("merge_func", ["mean", "sum", "max"])
def test_knots_follows_the_formula(zoo, matrix_reference, assert_near, dtype, density, merge_func):
    models, base = zoo(dtype)
    merged = fuse("knots", models, base, density=density, merge_func=merge_func, scaling_factor=0.5)
    expected = matrix_reference(models, base, lambda deltas: naive_knots(deltas, density, merge_func), 0.5)
    assert_near(merged, expected, [base, *models.values()])


@pytest.mark.parametrize("density", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("merge_func", ["mean", "sum", "max"])
def test_ties_at_hand_is_ties_by_tensor(zoo, density, merge_func):
    models, base = zoo(torch.float64)
    parameters = {"density": density, "merge_func": merge_func, "trim": "tensor"}
    merged = fuse("ties_merging", models, base, **parameters)
    for name in ("matrix", "conv", "one", "empty"):
        update = ties([model[name] - base[name] for model in models.values()], density, merge_func)
        assert torch.equal(merged[name], base[name] + update)


def test_one_model_and_nothing_trimmed_gives_that_model(zoo, assert_near):
    models, base = zoo(torch.float64, count=1)
    assert_near(fuse("knots", models, base, density=1), models["model0"], [base, models["model0"]])


def test_low_rank_tasks_are_merged_within_their_common_space():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    models = [{"w": draw(20, 2) @ draw(2, 15)} for _ in range(3)]
    merged = fuse("knots", models, {"w": torch.zeros(20, 15, dtype=torch.float64)})["w"]
    left = torch.cat([model["w"] for model in models], dim=1)
    assert int(torch.linalg.matrix_rank(left)) == 6
    assert int(torch.linalg.matrix_rank(torch.cat([left, merged], dim=1))) == 6


@pytest.mark.parametrize("parameters", [{"density": 0}, {"density": 20}, {"merge_func": "median"}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        Knots(**parameters)
