from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.continual.dop import Dop, smallest_norm
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def balance(merged, model, base, *, iterations, learning_rate, mgda, space):
    """The authors' loop in float64: automatic differentiation and torch's own Adam."""
    if torch.equal(merged, model):
        return merged
    spaces = []
    for weights in (merged, model):
        u, s, vh = torch.linalg.svd(weights - base, full_matrices=False)
        spaces.append((weights, torch.diag(s) @ u.T, vh.T @ torch.diag(s)))
    theta = torch.nn.Parameter((merged + model) / 2)
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    a = 0.8
    for _ in range(iterations):
        losses = []
        for weights, left, right in spaces:
            loss = torch.zeros((), dtype=torch.float64)
            if "u" in space:
                loss = loss + (left @ (theta - weights)).square().sum()
            if "v" in space:
                loss = loss + ((theta - weights) @ right).square().sum()
            losses.append(loss)
        if mgda:
            g = [torch.autograd.grad(loss, theta, retain_graph=True)[0] / loss.item() for loss in losses]
            aa, ab, bb = ((x * y).sum().item() for x, y in ((g[0], g[0]), (g[0], g[1]), (g[1], g[1])))
            a = 0.999 * a + 0.001 * np.clip((bb - ab) / (aa + bb - 2 * ab), 0, 1)
        optimizer.zero_grad()
        (a * losses[0] + (1 - a) * losses[1]).backward()
        optimizer.step()
    return theta.detach()


def naive_dop(models, base, **parameters):
    result = dict(base)
    for name, tensor in base.items():
        if not tensor.is_floating_point():
            continue
        first, *others = [model[name].double() for model in models.values()]
        for model in others:
            matrix = tensor.ndim == 2 and tensor.numel()
            first = balance(first, model, tensor.double(), **parameters) if matrix else (first + model) / 2
        result[name] = first
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("mgda", "space"), [(True, "uv"), (False, "u"), (False, "v")])
def test_dop_follows_the_algorithm(zoo, assert_near, dtype, mgda, space):
    models, base = zoo(dtype)
    method = Dop(iterations=10, learning_rate=1e-3, mgda=mgda, svd_proj_space=space, svd_epsilon=1.0)
    expected = naive_dop(models, base, iterations=10, learning_rate=1e-3, mgda=mgda, space=space)
    assert_near(fuse(method, models, base), expected, [base, *models.values()])


def test_matrices_much_longer_than_wide_follow_the_algorithm(assert_near):
    generator = torch.Generator().manual_seed(0)
    models = {
        name: {"w": torch.randn(30, 4, generator=generator, dtype=torch.float64)} for name in ("a", "b", "c")
    }
    base = {"w": torch.zeros(30, 4, dtype=torch.float64)}
    merged = fuse("dop", models, base, iterations=10, learning_rate=1e-3, svd_epsilon=1.0)
    expected = naive_dop(models, base, iterations=10, learning_rate=1e-3, mgda=True, space="uv")
    assert_near(merged, expected, [base, *models.values()])


def test_models_are_added_to_an_earlier_result_exactly(zoo):
    models, base = zoo(torch.float64)
    first, second, third = models.values()
    earlier = fuse("dop", {"a": first, "b": second}, base)
    continued = fuse("dop", {"earlier": earlier, "c": third}, base)
    whole = fuse("dop", {"a": first, "b": second, "c": third}, base)
    assert all(torch.equal(continued[name], whole[name]) for name in base)


def test_the_larger_weight_pulls_the_result_to_what_is_merged():
    base = {"w": torch.zeros(2, 2)}
    models = [{"w": torch.diag(torch.tensor([1.0, 0.5]))}, {"w": torch.diag(torch.tensor([0.5, 1.0]))}]
    distances = []
    for alpha in (0.1, 0.5, 0.9):
        merged = fuse("dop", models, base, mgda=False, alpha=alpha, learning_rate=1e-3)["w"]
        distances.append(float((merged - models[0]["w"]).norm()))
    assert distances[0] > distances[1] > distances[2]


def test_updates_of_rank_one_have_a_loss():
    base = {"w": torch.zeros(3, 2)}
    models = [
        {"w": torch.ones(3, 2)},
        {"w": torch.outer(torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 3.0]))},
    ]
    start = (models[0]["w"] + models[1]["w"]) / 2
    assert not torch.equal(fuse("dop", models, base)["w"], start)


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        ([1.0, 0.0], [0.0, 1.0], 0.5),
        ([3.0, 0.0], [0.0, 1.0], 0.1),
        ([1.0, 0.0], [2.0, 0.0], 1.0),
        ([2.0, 0.0], [1.0, 0.0], 0.0),
        ([1.0, 0.0], [-1.0, 0.0], 0.5),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
    ],
)
def test_the_shortest_combination_of_two_gradients(first, second, weight):
    gradients = (torch.tensor(first), torch.tensor(second))
    assert smallest_norm((1.0, 1.0), gradients) == pytest.approx(weight)
    assert smallest_norm((2.0, 2.0), gradients) == pytest.approx(weight)


def test_a_loss_of_zero_counts_as_a_gradient_of_zero():
    assert smallest_norm((0.0, 1.0), (torch.zeros(2), torch.ones(2))) == 1.0


@pytest.mark.parametrize("parameters", [{"alpha": 2}, {"svd_proj_space": "w"}, {"svd_epsilon": 0}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        Dop(**parameters)
