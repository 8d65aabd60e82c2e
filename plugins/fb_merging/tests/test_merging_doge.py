from __future__ import annotations

import pytest
import torch
from fb_merging.learned.doge import shared_change, shared_directions
from fb_merging.learned.doge_adamerging import DogeAdaMerging
from fb_merging.learned.doge_ta import DogeTaskArithmetic
from torch import Tensor

from fusionbench_core import fuse
from fusionbench_core.testing.zoo import case


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DELTAS = [0.1 * draw(7, 5, seed=seed) for seed in range(3)]
WEIGHTS = [0.07 / float(delta.norm()) for delta in DELTAS]


def conflict(change: Tensor) -> Tensor:
    merged = sum(weight * (delta + change) for weight, delta in zip(WEIGHTS, DELTAS))
    return sum((delta * (delta - merged)).sum(1).square().sum() for delta in DELTAS)


def test_the_change_is_that_of_projected_descent_with_automatic_differentiation():
    basis = torch.linalg.svd(
        torch.cat([torch.linalg.svd(delta, full_matrices=False).U[:, :1] for delta in DELTAS], 1)
    ).U[:, :2]
    change = torch.zeros(7, 5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([change], lr=1e-3)
    for _ in range(30):
        adam.zero_grad()
        conflict(change).backward()
        assert change.grad is not None
        change.grad -= basis @ basis.T @ change.grad
        adam.step()
    found = shared_change(DELTAS, WEIGHTS, subspace=0.4, iterations=30, learning_rate=1e-3)
    torch.testing.assert_close(found, change.detach(), rtol=1e-6, atol=1e-9)
    assert float(conflict(found)) < float(conflict(torch.zeros_like(found)))


def test_the_shared_subspace_is_orthonormal_and_empty_without_task_vectors():
    found = shared_directions(DELTAS, 0.4)
    assert found.shape == (7, 2)
    torch.testing.assert_close(found.T @ found, torch.eye(2, dtype=torch.float64))
    assert shared_directions([torch.zeros(4, 3)] * 2, 0.5).shape == (4, 0)


def test_without_steps_the_largest_entries_are_added_with_unit_scaled_matrices():
    small = case("mlp", count=2)
    merged = fuse("doge_ta", *small.states(), iterations=0, scaling_factor=0.5, density=0.25)
    models, base = small.states()
    names = ["layers.0.weight", "layers.1.weight"]
    deltas = {model: {n: (state[n] - base[n]).double() for n in names} for model, state in models.items()}
    expected = {name: tensor.double() for name, tensor in base.items()}
    for each in deltas.values():
        sizes = torch.cat([delta.abs().flatten() for delta in each.values()])
        threshold = sizes.sort(descending=True).values[round(0.25 * len(sizes)) - 1]
        for name, delta in each.items():
            expected[name] = expected[name] + 0.5 / delta.norm() * torch.where(
                delta.abs() >= threshold, delta, 0
            )
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_change_is_added_where_entries_are_kept(dtype):
    small = case("mlp", count=2, dtype=dtype)
    models, base = small.states()
    merged = fuse("doge_ta", models, base, iterations=20, density=1.0, learning_rate=1e-2)
    for name in ("layers.0.weight", "layers.1.weight"):
        deltas = [state[name].double() - base[name].double() for state in models.values()]
        weights = [0.07 / float(delta.norm()) for delta in deltas]
        change = shared_change(deltas, weights, subspace=1 / 6, iterations=20, learning_rate=1e-2)
        expected = base[name].double() + sum(w * (d + change) for w, d in zip(weights, deltas))
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(merged[name].double(), expected, rtol=tolerance, atol=tolerance)
        assert float((change.abs() > 1e-3).double().mean()) > 0.5


def test_doge_adamerging_begins_with_doge_task_arithmetic():
    small = case("mlp", count=2, samples=12)
    models, base = small.states()
    shared = {"iterations": 5, "density": 0.5}
    expected = fuse(DogeTaskArithmetic(**shared), models, base)
    found = fuse(DogeAdaMerging(steps=0, **shared), dict(small.models), small.base, tasks=small.tasks)
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    learned = fuse(DogeAdaMerging(steps=3, **shared), dict(small.models), small.base, tasks=small.tasks)
    assert not torch.equal(learned.layers[0].weight, found.layers[0].weight)
    assert torch.equal(learned.norm.weight, small.base.norm.weight)


@pytest.mark.parametrize("architecture", ["conv_bn", "tied_lm"])
def test_models_with_few_or_no_matrices_are_fine(architecture):
    small = case(architecture, count=2, samples=8)
    for method in (DogeTaskArithmetic(iterations=2), DogeAdaMerging(iterations=2, steps=2)):
        tasks = small.tasks if method.capabilities.tasks else None
        merged = fuse(method, dict(small.models), small.base, tasks=tasks)
        assert all(torch.isfinite(value).all() for value in merged.state_dict().values())
