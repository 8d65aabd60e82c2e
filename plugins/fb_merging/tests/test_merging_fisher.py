"""Statistics made of gradients, and the methods that read them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from fb_merging.data_driven.abs_gradient import AbsGradient
from fb_merging.data_driven.diag_fisher import DiagFisher
from fb_merging.data_driven.fisher_merging import FisherMerging
from fb_merging.data_driven.gradient_gram import GradientGram
from fb_merging.data_driven.gradients import drawn_label
from fb_merging.data_driven.mats import Mats, conjugate_gradients
from fb_merging.data_driven.regmean import RegMean
from fb_merging.data_driven.task_arithmetic_trust_region import TaskArithmeticTrustRegion
from torch import Tensor, nn

from fusionbench_core import Batch, MethodError, MissingCapability, TaskError, fuse
from fusionbench_core.testing.zoo import case


class Linear(nn.Module):
    """Softmax regression, as a trunk with an identity head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 3)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            nn.init.normal_(self.trunk.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(10, 4, generator=torch.Generator().manual_seed(5))


def batches_of(rows: Tensor, size: int, labelled: bool = False) -> Iterator[Batch]:
    for indices in torch.arange(len(rows)).split(size):
        yield Batch({"x": rows[indices]}, indices % 3 if labelled else None, indices)


def logit_gradients(model: Linear, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities `(n, 3)`, and for each label y the gradient of log p(y|x) by the logits, `(n, 3, 3)`."""
    logits = rows.double() @ model.trunk.weight.double().T + model.trunk.bias.double()
    p = logits.softmax(1).detach()
    return p, torch.eye(3, dtype=torch.float64)[None] - p[:, None, :]


@pytest.mark.parametrize("size", [1, 4])
def test_the_exact_fisher_information_of_softmax_regression(rows, size):
    model = Linear()
    found = DiagFisher().collect(model, batches_of(rows, size))
    p, by_logits = logit_gradients(model, rows)
    # The gradient by W is the outer product of that by the logits and x.
    squares = (p[:, :, None] * by_logits.square()).sum(1)
    expected = (squares[:, :, None] * rows.double().square()[:, None, :]).mean(0)
    torch.testing.assert_close(found["weight"].double(), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["bias"].double(), squares.mean(0), rtol=1e-4, atol=1e-7)
    assert model.trunk.weight.requires_grad
    assert model.trunk.weight.grad is None


@pytest.mark.parametrize("estimate", ["empirical", "sampled"])
def test_fisher_information_of_one_label_a_sample(rows, estimate):
    model = Linear()
    method = DiagFisher(estimate=estimate)
    found = method.collect(model, batches_of(rows, 4, labelled=method.labelled))
    p, by_logits = logit_gradients(model, rows)
    labels = torch.arange(10) % 3
    if estimate == "sampled":
        labels = torch.tensor([drawn_label(each, index) for index, each in enumerate(p)])
    chosen = by_logits[torch.arange(10), labels].square()
    expected = (chosen[:, :, None] * rows.double().square()[:, None, :]).mean(0)
    torch.testing.assert_close(found["weight"].double(), expected, rtol=1e-4, atol=1e-7)


def test_labels_are_drawn_with_their_probabilities():
    p = torch.tensor([0.2, 0.0, 0.5, 0.3])
    drawn = torch.tensor([drawn_label(p, index) for index in range(2000)])
    counts = torch.bincount(drawn, minlength=4) / 2000
    assert counts[1] == 0
    torch.testing.assert_close(counts, p, atol=0.04, rtol=0)


def test_gradient_magnitudes_at_the_base(rows):
    model = Linear()
    found = AbsGradient().collect(model, batches_of(rows, 4, labelled=True))
    _, by_logits = logit_gradients(model, rows)
    chosen = by_logits[torch.arange(10), torch.arange(10) % 3].abs()
    expected = (chosen[:, :, None] * rows.double().abs()[:, None, :]).mean(0)
    torch.testing.assert_close(found["weight"].double(), expected, rtol=1e-4, atol=1e-7)


def test_gram_matrices_of_gradients(rows):
    model = Linear()
    found = GradientGram().collect(model, batches_of(rows, 4))
    p, by_logits = logit_gradients(model, rows)
    labels = torch.tensor([drawn_label(each, index) for index, each in enumerate(p)])
    chosen = by_logits[torch.arange(10), labels]
    torch.testing.assert_close(found["weight"].double(), chosen.T @ chosen / 10, rtol=1e-4, atol=1e-6)
    assert not model.trunk._forward_hooks
    assert model.trunk.weight.grad is None


class Shifted(nn.Module):
    """Logits are sums over three positions, each with a shift of its own: all have the same gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.ParameterDict({"shift": torch.zeros(1, 3, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] + self.trunk["shift"]).sum(1)


def test_gradients_that_share_their_memory(rows):
    found = AbsGradient().collect(Shifted(), batches_of(rows, 4, labelled=True))
    p = (3 * rows.double()).softmax(1)
    expected = (torch.eye(4, dtype=torch.float64)[torch.arange(10) % 3] - p).abs().mean(0)
    torch.testing.assert_close(found["shift"].double(), expected.expand(1, 3, 4), rtol=1e-4, atol=1e-7)


class EachPosition(nn.Module):
    """Logits of the next token at each of two positions, as a language model gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)[:, None].expand(-1, 2, -1)


@pytest.mark.parametrize("statistic", [DiagFisher(), DiagFisher(estimate="sampled"), GradientGram()])
def test_predictions_other_than_one_class_a_sample_are_an_error(rows, statistic):
    with pytest.raises(TaskError, match=r"the shape \[\d, 2, 3\]"):
        statistic.collect(EachPosition(), batches_of(rows, 4))


@pytest.mark.parametrize("statistic", [DiagFisher(), GradientGram(), AbsGradient()])
def test_no_samples_is_an_error(statistic):
    with pytest.raises(TaskError, match="no samples"):
        statistic.collect(Linear(), [])


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fisher_merging_is_the_weighted_average(group, dtype):
    models = [draw(4, 3, seed=seed).to(dtype).float() for seed in range(2)]
    fishers = [draw(4, 3, seed=7).square(), 1e-9 * draw(4, 3, seed=8).square()]
    scale = (0.5, 4.0)
    merged = FisherMerging(floor=1e-6).merge(
        group(models, statistics={"diag_fisher": fishers}, survey=list(scale))
    )
    weights = [f.double().clamp(min=1e-6) / norm for f, norm in zip(fishers, scale)]
    expected = sum(w * m.double() for w, m in zip(weights, models)) / sum(weights)
    torch.testing.assert_close(merged.double(), expected, rtol=1e-5, atol=1e-6)


def test_entries_that_no_model_uses_are_averaged(group):
    models = [draw(3, seed=1), draw(3, seed=2)]
    merged = FisherMerging().merge(group(models, statistics={"diag_fisher": [torch.zeros(3)] * 2}))
    torch.testing.assert_close(merged, (models[0] + models[1]) / 2)


def test_fisher_merging_collects_weighs_and_norms(tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    small = case("mlp", count=2, samples=6)
    run = lambda **more: fuse("fisher_merging", dict(small.models), tasks=small.tasks, samples=4, **more)  # noqa: E731
    merged, plain = run().state_dict(), run(normalize=False).state_dict()
    fishers = []
    for name, model in small.models.items():
        task = small.tasks[name]
        guard = SimpleNamespace(seed=0)
        batches = task.batches("train", labelled=False, limit=4, seed=guard.seed, batch_size=32)
        fishers.append(DiagFisher().collect(task.attach(model), batches))
    norms = [sum(float(f.double().square().sum()) for f in each.values()) ** 0.5 for each in fishers]
    for name in fishers[0]:
        values = [model.state_dict()[name].double() for model in small.models.values()]
        for found, scales in ((merged, norms), (plain, [1.0, 1.0])):
            weights = [f[name].double().clamp(min=1e-6) / scale for f, scale in zip(fishers, scales)]
            expected = sum(w * v for w, v in zip(weights, values)) / sum(weights)
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=1e-5)


def test_the_empirical_estimate_asks_for_labels():
    assert FisherMerging(estimate="empirical").capabilities.tasks == ("labels",)
    assert FisherMerging().capabilities.tasks == ()


def test_the_trust_region_leaves_out_the_worst_conflicts(group):
    base, models = draw(5, 4, seed=0), [draw(5, 4, seed=seed) for seed in (1, 2, 3)]
    gradients = [draw(5, 4, seed=seed).abs() for seed in (4, 5, 6)]
    method = TaskArithmeticTrustRegion(threshold_quantile=0.8, scaling_factor=0.5)
    one = group(models, base, statistics={"abs_gradient": gradients})
    survey = method.survey()
    while not isinstance(survey, list):
        survey = survey.advance(survey.observe(one))
    deltas = [(model - base).double() for model in models]
    conflict = sum(gradients[i].double() * deltas[j].abs() for i in range(3) for j in range(3) if i != j)
    threshold = conflict.flatten().sort().values[20 - 4]
    expected = base.double() + 0.5 * torch.where(conflict < threshold, sum(deltas), 0)
    merged = method.merge(group(models, base, statistics={"abs_gradient": gradients}, survey=survey))
    torch.testing.assert_close(merged.double(), expected, rtol=1e-5, atol=1e-6)
    assert int((merged == base).sum()) == 4


def test_without_conflict_it_is_task_arithmetic(group):
    base, model = draw(5, 4, seed=0), draw(5, 4, seed=1)
    method = TaskArithmeticTrustRegion(zero_shot=True)
    survey = method.survey()
    one = group([model], base)
    while not isinstance(survey, list):
        survey = survey.advance(survey.observe(one))
    merged = method.merge(group([model], base, survey=survey))
    torch.testing.assert_close(merged, base + 0.3 * (model - base))


def test_the_trust_region_needs_labels_unless_it_is_zero_shot(tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    small = case("mlp", count=2, samples=6)
    with pytest.raises(MissingCapability, match="task pool"):
        fuse("task_arithmetic_trust_region", dict(small.models), small.base)
    zero_shot = fuse("task_arithmetic_trust_region", dict(small.models), small.base, zero_shot=True)
    run = lambda: fuse(  # noqa: E731
        "task_arithmetic_trust_region", dict(small.models), small.base, tasks=small.tasks, samples=4
    )
    merged, again = run(), run()
    moved = [(p != q).float().mean() for p, q in zip(merged.parameters(), small.base.parameters())]
    assert min(moved) > 0.5
    assert all(torch.equal(p, q) for p, q in zip(merged.parameters(), again.parameters()))
    assert not all(torch.equal(p, q) for p, q in zip(merged.parameters(), zero_shot.parameters()))


def test_conjugate_gradients_solve_a_small_system():
    rows = draw(12, 5, seed=1).double()
    system, wanted = rows.T @ rows, draw(5, 3, seed=2).double()
    found = conjugate_gradients(lambda x: system @ x, system @ wanted, torch.zeros(5, 3).double(), 20)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_mats_solves_the_kronecker_factored_equation(group):
    models = [draw(4, 6, seed=seed) for seed in range(2)]
    grams = [_gram(draw(20, 6, seed=seed)) for seed in (3, 4)]
    grads = [_gram(draw(20, 4, seed=seed)) for seed in (5, 6)]
    merged = Mats(iterations=200).merge(group(models, statistics={"gram": grams, "gradient_gram": grads}))
    system = sum(torch.kron(b, a) for a, b in zip(grams, grads)).double()
    target = sum((b @ w @ a).double() for a, b, w in zip(grams, grads, models))
    expected = torch.linalg.solve(system, target.flatten()).view(4, 6)
    torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-5)


def test_mats_with_gram_matrices_alone_is_regmean_without_shrinking(group):
    models = [draw(4, 6, seed=seed) for seed in range(2)]
    statistics = {"gram": [_gram(draw(20, 6, seed=seed)) for seed in (3, 4)]}
    merged = Mats(fisher="gram", iterations=50).merge(group(models, statistics=statistics))
    expected = RegMean(reduce_non_diagonal_ratio=1).merge(group(models, statistics=statistics))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)


def _gram(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("method", [FisherMerging(normalize=False), Mats(), TaskArithmeticTrustRegion()])
def test_statistics_that_are_missing_are_an_error(group, method):
    with pytest.raises(MethodError, match="there is no statistic"):
        method.merge(group([draw(4, 6, seed=1)] * 2, draw(4, 6, seed=2)))


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5,), (2, 3, 3)])
def test_tensors_without_statistics_are_averaged(group, shape):
    models = [draw(*shape, seed=seed) for seed in range(2)]
    nothing = {name: [None, None] for name in ("diag_fisher", "gram", "gradient_gram")}
    for method in (FisherMerging(normalize=False), Mats()):
        assert torch.equal(method.merge(group(models, statistics=nothing)), (models[0] + models[1]) / 2)
