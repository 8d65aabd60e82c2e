from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.operations.adam import Adam
from fb_merging.operations.interference import least_interference
from fb_merging.spectral.wudi_merging import WudiMerging
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def descend(deltas, iterations, learning_rate):
    """The paper's loop in float64: its loss, automatic differentiation, torch's own Adam."""
    deltas = [torch.from_numpy(delta) for delta in deltas if delta.any()]
    if not deltas:
        return np.zeros(())
    merged = torch.nn.Parameter(torch.stack(deltas).sum(0))
    optimizer = torch.optim.Adam([merged], lr=learning_rate)
    for _ in range(iterations):
        losses = [((merged - d) @ d.T).square().sum() / d.square().sum() for d in deltas]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    return merged.detach().numpy()


def solve(deltas, weigh):
    """B A^+ with numpy; float64 is enough for the zoo's matrices, which are not nearly dependent."""
    deltas = [delta for delta in deltas if delta.any()]
    if not deltas:
        return np.zeros(())
    grams = [weigh(delta) * delta.T @ delta for delta in deltas]
    return sum(delta @ gram for delta, gram in zip(deltas, grams)) @ np.linalg.pinv(sum(grams))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("learning_rate", [1e-5, 1e-3])
def test_wudi_descends_as_the_paper_does(zoo, matrix_reference, assert_near, dtype, learning_rate):
    models, base = zoo(dtype)
    method = WudiMerging(iterations=30, learning_rate=learning_rate)
    expected = matrix_reference(models, base, lambda deltas: descend(deltas, 30, learning_rate))
    assert_near(fuse(method, models, base), expected, [base, *models.values()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_closed_form_solves_the_normal_equations(zoo, matrix_reference, assert_near, dtype):
    models, base = zoo(dtype, count=2)
    merged = fuse("wudi_merging", models, base, solver="closed_form")
    expected = matrix_reference(models, base, lambda deltas: solve(deltas, lambda d: 1 / (d**2).sum()))
    assert_near(merged, expected, [base, *models.values()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_actmerge_is_regmean_on_the_task_matrices(zoo, matrix_reference, assert_near, dtype):
    models, base = zoo(dtype, count=2)
    merged = fuse("actmerge", models, base, scaling_factor=0.9)
    expected = matrix_reference(models, base, lambda deltas: solve(deltas, lambda d: 1.0), 0.9)
    assert_near(merged, expected, [base, *models.values()])


def test_many_steps_come_to_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(6, 4, dtype=torch.float64)}
    models = [{"w": torch.randn(6, 4, generator=generator, dtype=torch.float64)} for _ in range(2)]
    near = fuse("wudi_merging", models, base, iterations=3000, learning_rate=1e-2)["w"]
    exact = fuse("wudi_merging", models, base, solver="closed_form")["w"]
    torch.testing.assert_close(near, exact, rtol=0, atol=1e-6)


def test_tasks_on_orthogonal_inputs_are_kept_whole_by_both_solvers():
    base = {"w": torch.zeros(2, 4)}
    first = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, -1.0, 0.0, 0.0]])
    second = torch.tensor([[0.0, 0.0, 4.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    for solver in ("adam", "closed_form"):
        merged = fuse("wudi_merging", [{"w": first}, {"w": second}], base, solver=solver)["w"]
        torch.testing.assert_close(merged, first + second)


def test_a_model_that_equals_the_base_is_not_heard():
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(5, 4, generator=generator)}
    tuned = {"w": base["w"] + torch.randn(5, 4, generator=generator)}
    for solver in ("adam", "closed_form"):
        merged = fuse("wudi_merging", [tuned, base], base, solver=solver)
        torch.testing.assert_close(merged["w"], tuned["w"])


def test_a_ridge_shrinks_the_update():
    delta = torch.diag(torch.tensor([2.0, 1.0]))
    # Δ G (G + ρ I)^-1 on the diagonal: s^3 / (s^2 + ρ).
    merged = least_interference([delta], [1.0], ridge=1.0)
    torch.testing.assert_close(merged, torch.diag(torch.tensor([8 / 5, 1 / 2], dtype=torch.float64)))


def test_nearly_dependent_tasks_keep_their_digits():
    # Squared, the small direction of 1e-9 would drown in the rounding of the large one.
    delta = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64))
    torch.testing.assert_close(least_interference([delta, delta], [1.0, 1.0]), delta, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_steps_like_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(7, generator=generator, dtype=dtype)
    theirs = torch.nn.Parameter(ours.clone())
    adam, reference = Adam(ours, 0.01), torch.optim.Adam([theirs], lr=0.01)
    for _ in range(20):
        gradient = torch.randn(7, generator=generator, dtype=dtype)
        adam.step(ours, gradient)
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=10 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    "parameters", [{"iterations": -1}, {"learning_rate": 0}, {"ridge": -1}, {"solver": "sgd"}]
)
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        WudiMerging(**parameters)
