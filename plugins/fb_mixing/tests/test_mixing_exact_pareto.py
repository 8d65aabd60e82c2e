"""Exact Pareto optimal search against its linear programs, and on the problem of its paper."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from fb_mixing.ensembling.exact_pareto import exact_pareto_weights
from fb_mixing.ensembling.layers import WeightEnsembling, set_preference
from fb_mixing.ensembling.linear_program import maximise
from fb_mixing.ensembling.pwe_moe import ParetoWeightEnsemblingMoE
from torch import Tensor, nn

from fusionbench_core import fuse
from fusionbench_core.testing.zoo import case


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best_corner(objective: Tensor, rows: Tensor, bounds: Tensor) -> float | None:
    """The best value over all corners of the polytope, each the solution of n equations."""
    n = len(objective)
    sides, limits = torch.cat([rows, torch.eye(n)]).double(), torch.cat([bounds, torch.zeros(n)]).double()
    values = []
    for chosen in combinations(range(len(sides)), n - 1):
        equations = torch.cat([torch.ones(1, n).double(), sides[list(chosen)]])
        if equations.det().abs() > 1e-9:
            right = torch.cat([torch.ones(1).double(), limits[list(chosen)]])
            corner = torch.linalg.solve(equations, right)
            if bool((sides @ corner >= limits - 1e-9).all()):
                values.append(float(objective @ corner))
    return max(values, default=None)


@pytest.mark.parametrize("seed", range(30))
def test_a_program_finds_the_best_corner(seed):
    n, m = 2 + seed % 3, 1 + seed % 4
    objective, rows = randn(n, seed=seed), randn(m, n, seed=100 + seed)
    bounds = randn(m, seed=200 + seed) * (0.5 * (seed % 3))
    wanted, found = best_corner(objective, rows, bounds), maximise(objective, rows, bounds)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert float(objective @ found) == pytest.approx(wanted, abs=1e-9)
        assert float(found.sum()) == pytest.approx(1)
        assert bool((found >= -1e-12).all())
        assert bool((rows @ found >= bounds - 1e-9).all())


@pytest.mark.parametrize("seed", range(12))
def test_weights_are_those_of_the_papers_programs(seed):
    m = 2 + seed % 3
    gradients, losses = randn(m, 6, seed=seed), randn(m, seed=50 + seed).abs()
    preference = randn(m, seed=80 + seed).abs()
    if seed % 4 == 0:
        losses = 1 / preference
    weights = exact_pareto_weights(losses, preference, gradients @ gradients.T)
    r, c = preference / preference.sum(), gradients @ gradients.T
    share = r * losses / (r * losses).sum()
    mu = float((share * (m * share).log()).sum())
    a = r * ((m * share).log() - mu)
    ca = c @ a
    if mu > 1e-4:
        objective, worst = ca, int((r * losses).argmax())
        kept = [j for j in range(m) if j == worst or ca[j] <= 0] if bool((ca > 0).any()) else list(range(m))
        bounds = [0.0 if j == worst or not bool((ca > 0).any()) else float(ca[j]) for j in kept]
        rows = c[kept]
    else:
        objective, rows = c.sum(0), torch.cat([c, ca[None]])
        bounds = [*([0.0] * m), min(0.0, float(ca.max()))]
    wanted = best_corner(objective, rows, torch.tensor(bounds))
    assert wanted is not None
    assert float(objective @ weights) == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_weights_without_gradients_or_losses_are_the_preference():
    preference, products = torch.tensor([3.0, 1.0]), torch.eye(2)
    for losses, c in ((torch.ones(2), torch.zeros(2, 2)), (torch.zeros(2), products)):
        assert exact_pareto_weights(losses, preference, c).tolist() == [0.75, 0.25]


@pytest.mark.parametrize("first", [0.3, 0.5, 0.8])
def test_descent_finds_the_preferred_point_of_a_concave_front(first):
    """The paper's l = 1 - exp(-|x -+ 1/sqrt(n)|^2): linear scalarisation ends in one of the corners."""
    n, r = 4, torch.tensor([first, 1 - first], dtype=torch.float64)
    x = torch.tensor([0.2, -0.1, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        losses = torch.stack([1 - torch.exp(-(x - sign / math.sqrt(n)).square().sum()) for sign in (1, -1)])
        rows = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
        weights = exact_pareto_weights(losses.detach(), r, rows @ rows.T)
        x = (x - 0.1 * weights @ rows).detach().requires_grad_()
    weighted, x = (r * losses).tolist(), x.detach()
    assert weighted[0] == pytest.approx(weighted[1], rel=0.05)
    # The Pareto set is the line between the two minima.
    assert float((x - x.mean()).abs().max()) < 0.02
    assert float(x.abs().max()) <= 1 / math.sqrt(n)


def test_the_mixture_learns_losses_in_the_ratio_of_the_preference():
    small = case("vit_tiny", count=2)
    names = list(small.models)
    options = {"steps": 40, "learning_rate": 0.05, "router_layers": 1}
    found = {}
    for preference in ({names[0]: 4.0, names[1]: 1.0}, {names[0]: 1.0, names[1]: 4.0}):
        method = ParetoWeightEnsemblingMoE(scalarization="exact_pareto", preference=preference, **options)
        fused = fuse(method, small.models, small.base, tasks=small.tasks)
        losses = []
        for task in small.tasks.values():
            (batch,) = task.batches("validation", labelled=True)
            losses.append(
                float(nn.functional.cross_entropy(task.attach(fused)(**batch.inputs), batch.labels))
            )
        found[tuple(preference.values())] = losses[0] / losses[1]
    assert found[4.0, 1.0] < found[1.0, 4.0]
    assert any(isinstance(module, WeightEnsembling) for module in set_preference(fused, [0.5, 0.5]).modules())
