from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from fb_merging.data_driven.regmean import RegMean, solve_nearest_zero
from torch import Tensor, nn

from fusionbench_core import (
    Batch,
    ClassificationTask,
    MethodError,
    MissingCapability,
    TaskCard,
    TaskRecord,
    fuse,
)

RECORD = TaskRecord(
    name="rows",
    target="tests:Rows",
    summary="two classes of vectors",
    provides=("evaluate", "batches", "labels", "logits", "loss"),
)


class Headed(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)


class Rows(ClassificationTask):
    """Gaussian vectors `(40, 6)`, of which the last feature is dead."""

    seed: int
    record = RECORD

    def card(self) -> TaskCard:
        return TaskCard(title="rows", version=1, source="made here", licence="none", splits={"train": 40})

    def attach(self, trunk: nn.Module) -> nn.Module:
        return Headed(trunk)

    def rows(self) -> Tensor:
        rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(self.seed))
        rows[:, 5] = 0
        return rows

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64) -> Iterator[Batch]:
        rows = self.rows()[:limit]
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield Batch({"x": part}, None, torch.arange(start, start + len(part)))

    def fingerprint(self) -> str:
        return f"rows {self.seed}"


def closed_form(weights: list[Tensor], grams: list[Tensor], alpha: float) -> Tensor:
    """W = (Σ W G)(Σ G)^+ in float64, for the difference from the average."""
    average = np.mean([w.double().numpy() for w in weights], axis=0)
    shrunk = [alpha * g.double().numpy() + (1 - alpha) * np.diag(np.diag(g.double().numpy())) for g in grams]
    right = sum(g @ (w.double().numpy() - average).T for w, g in zip(weights, shrunk))
    return torch.from_numpy(average + np.linalg.lstsq(sum(shrunk), right, rcond=1e-12)[0].T)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gram_of(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_regmean_is_the_closed_form(group, alpha):
    weights = [draw(4, 6, seed=seed) for seed in range(3)]
    grams = [gram_of(draw(50, 6, seed=10 + seed)) for seed in range(3)]
    merged = RegMean(reduce_non_diagonal_ratio=alpha).merge(group(weights, statistics={"gram": grams}))
    torch.testing.assert_close(merged.double(), closed_form(weights, grams, alpha), rtol=1e-5, atol=1e-5)


def test_without_shrinking_it_is_the_least_squares_fit_to_all_outputs(group):
    weights = [draw(4, 6, seed=seed) for seed in range(3)]
    rows = [draw(50, 6, seed=10 + seed) for seed in range(3)]
    merged = RegMean(reduce_non_diagonal_ratio=1).merge(
        group(weights, statistics={"gram": [gram_of(each) for each in rows]})
    )
    outputs = torch.cat([each.double() @ w.double().T for each, w in zip(rows, weights)])
    fit = torch.linalg.lstsq(torch.cat(rows).double(), outputs).solution.T
    torch.testing.assert_close(merged.double(), fit, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_dead_features_and_too_few_tokens_take_what_is_nearest_the_average(group, alpha):
    weights = [draw(4, 6, seed=seed) for seed in range(2)]
    rows = [draw(2, 6, seed=10 + seed) for seed in range(2)]
    for each in rows:
        each[:, 3] = 0
    grams = [gram_of(each) for each in rows]
    merged = RegMean(reduce_non_diagonal_ratio=alpha).merge(group(weights, statistics={"gram": grams}))
    average = (weights[0] + weights[1]) / 2
    assert torch.isfinite(merged).all()
    torch.testing.assert_close(merged[:, 3], average[:, 3])
    # What the data say is fitted all the same: the normal equations hold.
    shrunk = [alpha * g.double() + (1 - alpha) * torch.diag(g.diagonal()).double() for g in grams]
    left = merged.double() @ sum(shrunk)
    right = sum(w.double() @ g for w, g in zip(weights, shrunk))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_features_of_very_different_size_are_solved_accurately():
    rows = draw(50, 6).double() * torch.tensor([1e-3, 1e-2, 1, 1e2, 1e3, 1]).double()
    system, wanted = rows.T @ rows, draw(6, 3, seed=1).double()
    torch.testing.assert_close(solve_nearest_zero(system, system @ wanted), wanted, rtol=1e-7, atol=0)


def test_one_model_and_copies_of_one_give_that_model(group):
    weight, grams = draw(4, 6), [gram_of(draw(3, 6, seed=seed)) for seed in (1, 2)]
    assert torch.equal(RegMean().merge(group([weight], statistics={"gram": grams[:1]})), weight)
    assert torch.equal(RegMean().merge(group([weight, weight], statistics={"gram": grams})), weight)


@pytest.mark.parametrize("shape", [(4, 6), (5,), (), (0, 6), (2, 3, 3)])
def test_tensors_without_gram_matrices_are_averaged(group, shape):
    models = [draw(*shape, seed=seed) for seed in range(2)]
    merged = RegMean().merge(group(models, statistics={"gram": [None, None]}))
    assert torch.equal(merged, (models[0] + models[1]) / 2)


def test_empty_linear_weights_are_fine(group):
    for shape in ((4, 0), (0, 6)):
        grams = [gram_of(torch.ones(3, shape[1]))] * 2
        assert RegMean().merge(group([torch.ones(shape)] * 2, statistics={"gram": grams})).shape == shape


@pytest.mark.parametrize(
    "grams",
    [None, [torch.eye(6), None], [torch.eye(6), torch.eye(5)], [torch.eye(6), torch.full((6, 6), torch.nan)]],
)
def test_matrices_that_are_missing_or_do_not_fit_are_an_error(group, grams):
    models = [draw(4, 6), draw(4, 6, seed=1)]
    with pytest.raises(MethodError, match="regmean"):
        RegMean().merge(group(models, statistics={"gram": grams} if grams else None))


@pytest.fixture
def trunks() -> list[nn.Module]:
    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))

    return [make(seed) for seed in range(3)]


def test_fuse_collects_the_statistic_and_merges(trunks, tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    base, *models = trunks
    named = dict(zip("ab", models))
    tasks = {name: Rows(name=name, seed=seed) for seed, name in enumerate(named)}
    run = partial(fuse, "regmean", named, base, tasks=tasks, samples=30)
    merged, again = run(engine={"threads": 1}), run(engine={"threads": 3})
    inputs = [tasks[name].rows()[:30] for name in named]
    with torch.no_grad():
        hidden = [torch.relu(model[0](rows)) for model, rows in zip(models, inputs)]
        for position, rows in ((0, inputs), (2, hidden)):
            expected = closed_form(
                [model[position].weight for model in models], [gram_of(each) for each in rows], 0.9
            )
            torch.testing.assert_close(merged[position].weight.double(), expected, rtol=1e-4, atol=1e-5)
            average = (models[0][position].bias + models[1][position].bias) / 2
            torch.testing.assert_close(merged[position].bias, average)
    for name, tensor in merged.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_model_without_a_task_is_an_error(trunks, tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingCapability, match="task 'b'"):
        fuse("regmean", dict(zip("ab", trunks)), tasks={"a": Rows(name="a", seed=0)})
