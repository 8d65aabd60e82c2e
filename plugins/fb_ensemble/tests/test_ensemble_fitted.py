"""Weights and classifiers fitted on validation data, against their conditions of optimality in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from fb_ensemble.fitting import fit_classifier, fit_weights
from fb_ensemble.members import members_of
from fb_ensemble.stacking import Stacking
from fb_ensemble.validation import Predictions, scores
from fb_ensemble.weighted_ensemble import WeightedEnsemble
from torch.nn import functional as F

from fusionbench_core import InsufficientResources, MethodError, MissingCapability, Predictor, TaskConditioned
from fusionbench_core.tasks.attach import attach


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture_loss(weights: torch.Tensor, tasks: list[Predictions]) -> torch.Tensor:
    """Mean over tasks of the mean of -log Σ_t w_t p_t(label)."""
    losses = []
    for task in tasks:
        p = task.logits.softmax(-1)
        own = p[:, torch.arange(len(task.labels)), task.labels]
        losses.append(-(weights @ own).log().mean())
    return sum(losses) / len(losses)


def seen(logits, labels):
    """Predictions of samples that have one label each."""
    return Predictions(logits, labels, len(labels))


TASKS = [
    seen(2 * randn(4, 60, 5, seed=1), torch.arange(60) % 5),
    seen(randn(4, 20, 3, seed=2), torch.arange(20) % 3),
]


def test_fitted_weights_of_probabilities_are_where_em_comes_to_rest():
    """Conditions of Karush, Kuhn and Tucker: a positive weight is its model's mean responsibility."""
    weights = fit_weights(TASKS, "probabilities")
    assert weights.sum() == pytest.approx(1)
    free = weights.clone().requires_grad_()
    mixture_loss(free, TASKS).backward()
    assert free.grad is not None
    # The gradient is -1 where a weight is positive, and no smaller where it is 0.
    inside = weights > 1e-6
    torch.testing.assert_close(free.grad[inside], -torch.ones(int(inside.sum())).double(), rtol=1e-5, atol=0)
    assert (free.grad[~inside] >= -1 - 1e-5).all()


def test_fitted_weights_of_logits_are_better_than_all_others_on_a_grid():
    def loss(weights: torch.Tensor) -> float:
        each = [F.cross_entropy(torch.einsum("t,tnc->nc", weights, t.logits[:3]), t.labels) for t in TASKS]
        return float(sum(each) / len(each))

    found = fit_weights([seen(task.logits[:3], task.labels) for task in TASKS], "logits")
    steps = [i / 20 for i in range(21)]
    grid = [torch.tensor([a, b, 1 - a - b]).double() for a in steps for b in steps if a + b <= 1]
    assert loss(found) <= min(map(loss, grid)) + 1e-9


def test_a_model_that_knows_every_answer_takes_all_the_weight():
    labels = torch.arange(30) % 3
    logits = torch.stack([randn(30, 3), 20 * F.one_hot(labels, 3).double()])
    weights = fit_weights([seen(logits, labels)], "probabilities")
    torch.testing.assert_close(weights, torch.tensor([0, 1]).double(), atol=1e-6, rtol=0)


def test_copies_of_one_model_get_equal_weights():
    logits = randn(1, 30, 3).expand(4, 30, 3)
    weights = fit_weights([seen(logits, torch.arange(30) % 3)], "logits")
    torch.testing.assert_close(weights, torch.full((4,), 0.25).double())


@pytest.mark.parametrize("space", ["logits", "probabilities", "log_probabilities"])
def test_a_fitted_ensemble_uses_all_tasks_and_says_so(space, job, validation):
    fused = WeightedEnsemble(weights="fitted", space=space).fuse(this := job())
    names = sorted(validation)
    tasks = [seen(validation[name][0], validation[name][1]) for name in names]
    order = [list(validation).index(name) for name in names]
    expected = fit_weights([seen(task.logits[order], task.labels) for task in tasks], space)
    found = torch.tensor([fused.details["weights"][name] for name in names]).double()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert isinstance(fused.module, Predictor)
    assert fused.module.names == tuple(names)
    assert fused.arguments["weights"] == list(fused.details["weights"].values())
    assert fused.details["validation_samples"] == dict.fromkeys(names, 48)
    assert all(sum(task.used.values()) == 48 for task in this.tasks.values())
    assert all("validation" in key for task in this.tasks.values() for key in task.used)


def test_fitted_weights_do_no_worse_than_equal_ones_on_validation_data(job, validation):
    weights = WeightedEnsemble(weights="fitted", space="probabilities").fuse(job()).details["weights"]
    tasks = [seen(*each) for each in validation.values()]
    fitted = torch.tensor([weights[name] for name in validation]).double()
    assert mixture_loss(fitted, tasks) <= mixture_loss(torch.full((3,), 1 / 3).double(), tasks) + 1e-6


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_the_classifier_is_scikit_learns_logistic_regression(l2):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = randn(90, 7, seed=3), torch.randint(4, (90,), generator=torch.Generator().manual_seed(4))
    weight, bias = fit_classifier(x, y, 4, l2)
    theirs = linear_model.LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), atol=1e-5, rtol=1e-4)
    intercept = torch.from_numpy(theirs.intercept_)
    torch.testing.assert_close(bias, intercept - intercept.mean(), atol=1e-5, rtol=1e-4)


def test_at_the_classifiers_optimum_the_gradient_is_zero():
    x, y = randn(40, 5, seed=5), torch.arange(40) % 3
    weight, bias = fit_classifier(x, y, 3, 2.0)
    excess = (x @ weight.T + bias).softmax(-1) - F.one_hot(y, 3)
    torch.testing.assert_close(excess.T @ x + 2.0 * weight, torch.zeros(3, 5).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(excess.sum(0), torch.zeros(3).double(), atol=1e-5, rtol=0)


def test_a_class_that_is_missing_from_the_data_gets_finite_weights():
    weight, bias = fit_classifier(randn(20, 3), torch.arange(20) % 3, 4, 1.0)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_stacking_reads_the_probabilities_of_all_models(job, zoo, validation):
    method = Stacking(l2=0.5)
    fused = method.fuse(this := job())
    assert isinstance(fused.module, TaskConditioned)
    names = sorted(zoo.models)
    order = [list(zoo.models).index(name) for name in names]
    for name, task in zoo.tasks.items():
        logits, labels = validation[name]
        p = logits[order].softmax(-1)
        features = torch.cat(list(p), dim=-1)
        weight, bias = fit_classifier(features, labels, 3, 0.5)
        (batch,) = task.batches("validation", labelled=False)
        found = attach(task, fused.module)(**batch.inputs)
        torch.testing.assert_close(found.double(), features @ weight.T + bias, atol=1e-4, rtol=1e-4)
        assert this.tasks[name].used == {key: 48 for key in this.tasks[name].used if "validation" in key}
    with pytest.raises(MissingCapability, match="for_task"):
        fused.module(torch.zeros(1, 8))
    with pytest.raises(MissingCapability, match="knows no task"):
        fused.module.for_task("zeta")


def test_a_limit_of_validation_samples_is_kept(job):
    fused = Stacking(validation_samples=10).fuse(this := job())
    assert set(fused.details["validation_samples"].values()) == {10}
    assert all(sum(task.used.values()) == 10 for task in this.tasks.values())


@pytest.mark.parametrize("method", [Stacking(), WeightedEnsemble(weights="fitted")], ids=repr)
def test_the_order_of_models_and_tasks_does_not_matter(method, job, zoo):
    turned = job(models=dict(reversed(zoo.models.items())))
    object.__setattr__(turned, "tasks", dict(reversed(turned.tasks.items())))
    assert method.fuse(turned).arguments == method.fuse(job()).arguments


@pytest.mark.parametrize("method", [Stacking(), WeightedEnsemble(weights="fitted")], ids=repr)
def test_without_tasks_there_is_nothing_to_fit_on(method, job):
    with pytest.raises(MissingCapability, match="no task"):
        method.fuse(job(tasks={}))


def test_labels_are_asked_for_only_by_what_is_fitted():
    assert WeightedEnsemble().capabilities.tasks == ()
    assert set(WeightedEnsemble(weights="fitted").capabilities.tasks) == {"batches", "labels", "logits"}
    assert not WeightedEnsemble(weights="fitted").capabilities.ordered


def test_a_model_whose_logits_are_not_finite_is_named(job, zoo):
    broken = {name: copy.deepcopy(model) for name, model in zoo.models.items()}
    broken["beta"].get_parameter("norm.bias").fill_(float("nan"))
    with pytest.raises(MethodError, match="'beta'"):
        WeightedEnsemble(weights="fitted").fuse(job(models=broken))


def test_stacking_learns_no_classifier_of_a_vocabulary(job, monkeypatch):
    # Three models and three classes: T · classes² = 27.
    monkeypatch.setattr("fb_ensemble.stacking.LARGEST", 26)
    with pytest.raises(MissingCapability, match="27 numbers") as caught:
        Stacking().fuse(job())
    assert "weighted_ensemble" in str(caught.value)
    monkeypatch.setattr("fb_ensemble.stacking.LARGEST", 27)
    Stacking(l2=10.0).fuse(job())


@pytest.mark.parametrize("method", [WeightedEnsemble(weights="fitted"), Stacking()])
def test_predictions_that_do_not_fit_in_memory_are_refused(job, monkeypatch, method):
    monkeypatch.setattr("fb_ensemble.validation.available_memory", lambda: 1000)
    with pytest.raises(InsufficientResources) as caught:
        method.fuse(job())
    assert "method.validation_samples" in str(caught.value)


def test_scores_are_taken_batch_by_batch_and_hold_no_logits(job, zoo, validation, monkeypatch):
    monkeypatch.setattr("fb_ensemble.validation.available_memory", lambda: 0)
    this, names = job(), list(zoo.models)
    found = scores(this, members_of(this.pool, names, "all"), None)
    for name, (logits, labels) in validation.items():
        right = (logits.argmax(-1) == labels).double().mean(-1)
        chosen = logits.log_softmax(-1)[:, torch.arange(len(labels)), labels]
        torch.testing.assert_close(found[name].accuracies, right)
        torch.testing.assert_close(found[name].losses, -chosen.mean(-1), atol=1e-6, rtol=1e-5)
        assert found[name].samples == len(labels)
