from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from fb_merging.learned.adamerging import AdaMerging
from torch import Tensor, nn

from fusionbench_core import (
    AdaptationTask,
    Batch,
    ClassificationTask,
    ConfigError,
    FusionJob,
    MethodError,
    MissingCapability,
    ModelPool,
    NonFiniteInput,
    PooledModel,
    TaskCard,
    TaskRecord,
    fuse,
    mean_entropy,
)
from fusionbench_core.tasks.pool import TaskPool, TaskPoolConfig

RECORD = TaskRecord(
    name="blobs",
    target="tests:Blobs",
    summary="three classes of vectors",
    provides=("evaluate", "batches", "labels", "logits", "loss"),
)


class Trunk(nn.Module):
    """Vectors `(n, 4)` to features `(n, 8)`, with tied layers, a 0-d parameter and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.mix = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8, bias=False)
        self.tied.weight = self.mix.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(torch.tanh(self.norm(self.inner(x))))
        return self.scale * self.tied(torch.tanh(self.mix(hidden)))


class Headed(nn.Module):
    def __init__(self, trunk: nn.Module, seed: int) -> None:
        super().__init__()
        self.trunk = trunk
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Parameter(torch.randn(8, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x) @ self.head


class Blobs(ClassificationTask):
    """Gaussian vectors `(24, 4)` in each split."""

    seed: int
    broken: bool = False
    record = RECORD

    def card(self) -> TaskCard:
        return TaskCard(
            title="blobs", version=1, source="made here", licence="none", splits={"validation": 24}
        )

    def attach(self, trunk: nn.Module) -> nn.Module:
        return Headed(trunk, self.seed)

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randn(24, 4, generator=generator) + self.seed
        rows = rows * torch.nan if self.broken else rows
        order = torch.arange(24)
        if seed is not None:
            order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
        for part in order[:limit].split(batch_size):
            yield Batch({"x": rows[part]}, part % 3 if labelled else None, part)

    def fingerprint(self) -> str:
        return f"blobs {self.seed}"


Models = tuple[dict[str, nn.Module], nn.Module]


@pytest.fixture
def models() -> Models:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = Trunk().eval()
        named = {}
        for name in ("one", "two"):
            named[name] = copy.deepcopy(base)
            for parameter in named[name].parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
            named[name].norm.running_mean += torch.randn(8)
            named[name].norm.running_var += torch.rand(8)
    return named, base


@pytest.fixture
def tasks() -> dict[str, Blobs]:
    return {"one": Blobs(name="one", seed=1), "two": Blobs(name="two", seed=2)}


def job_of(models: Models, tasks: Mapping[str, Any], seed: int = 0, **pool: Any) -> FusionJob:
    named, base = models
    return FusionJob(
        pool=ModelPool(
            {name: PooledModel(name, content=model) for name, model in named.items()},
            PooledModel("base", content=base),
            **pool,
        ),
        tasks={name: AdaptationTask(task) for name, task in tasks.items()},
        seed=seed,
    )


def test_entropy_is_shannons():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    p = logits[1].double().softmax(0)
    expected = (torch.tensor(4.0).log() - (p * p.log()).sum()) / 2
    assert float(mean_entropy(logits)) == pytest.approx(float(expected))


def test_entropy_of_excluded_and_certain_classes_is_finite_with_its_gradient():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [1e4, 0.0, 0.0]], requires_grad=True)
    entropy = mean_entropy(logits)
    entropy.backward()
    assert float(entropy.detach()) == pytest.approx(float(torch.tensor(2.0).log()) / 2)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("granularity", ["tensor", "task"])
def test_entropy_falls_and_coefficients_move(models, tasks, granularity):
    method = AdaMerging(granularity=granularity, steps=30, learning_rate=2e-2)
    details = method.fuse(job_of(models, tasks)).details
    curve = details["losses"]["series"]["entropy"]
    assert len(curve) == 30
    assert sum(curve[-10:]) < 0.8 * sum(curve[:10])
    coefficients = details["coefficients"]
    assert coefficients["columns"] == ["one", "two"]
    values = [value for row in coefficients["values"] for value in row]
    if granularity == "tensor":
        assert coefficients["rows"] == [name for name, _ in models[1].named_parameters()]
        assert len(set(values)) > 2
    assert all(abs(value - 0.3) > 1e-4 for value in values)


def plain_logits(theta: Mapping[str, Tensor], mean: Tensor, variance: Tensor, task: Blobs) -> Tensor:
    """The trunk and the head written out in float64, on the whole split."""
    (batch,) = task.batches("validation", labelled=False)
    hidden = batch.inputs["x"].double() @ theta["inner.weight"].T + theta["inner.bias"]
    hidden = (hidden - mean) / (variance + 1e-5).sqrt() * theta["norm.weight"] + theta["norm.bias"]
    hidden = torch.tanh(torch.tanh(hidden) @ theta["mix.weight"].T + theta["mix.bias"])
    head = Headed(nn.Identity(), task.seed).head.detach().double()
    return theta["scale"] * (hidden @ theta["mix.weight"].T) @ head


@pytest.mark.parametrize("granularity", ["tensor", "task"])
def test_two_steps_equal_plain_autograd_in_float64(models, tasks, granularity):
    # With batches of a whole split, shuffling does not matter.
    method = AdaMerging(granularity=granularity, steps=2, learning_rate=1e-2, batch_size=24)
    fused = method.fuse(job_of(models, tasks))

    named, base = models
    names = [name for name, _ in base.named_parameters()]
    start = {name: base.state_dict()[name].double() for name in names}
    vectors = [{n: model.state_dict()[n].double() - start[n] for n in names} for model in named.values()]
    mean, variance = (
        torch.stack([model.state_dict()[f"norm.running_{kind}"].double() for model in named.values()]).mean(0)
        for kind in ("mean", "var")
    )

    def merged(coefficients: Tensor) -> dict[str, Tensor]:
        columns = zip(names, *coefficients.expand(2, len(names)))
        return {n: start[n] + one * vectors[0][n] + two * vectors[1][n] for n, one, two in columns}

    shape = (2, len(names) if granularity == "tensor" else 1)
    coefficients = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([coefficients], lr=1e-2)
    for _ in range(2):
        theta = merged(coefficients)
        log_ps = [plain_logits(theta, mean, variance, task).log_softmax(1) for task in tasks.values()]
        adam.zero_grad()
        torch.stack([-(log_p.exp() * log_p).sum(1).mean() for log_p in log_ps]).sum().backward()
        adam.step()

    found = torch.tensor(fused.details["coefficients"]["values"]).T
    torch.testing.assert_close(found.double(), coefficients.detach(), rtol=1e-4, atol=1e-6)
    assert fused.state is not None
    for name, expected in merged(found.double()).items():
        torch.testing.assert_close(fused.state[name].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused.state["norm.running_mean"].double(), mean)
    assert torch.equal(fused.state["tied.weight"], fused.state["mix.weight"])
    assert "norm.num_batches_tracked" not in fused.state


def test_fuse_gives_a_module_and_leaves_everything_as_it_was(models, tasks):
    named, base = models
    named["one"].train()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    random = torch.random.get_rng_state()
    merged = fuse("adamerging", named, base, tasks=tasks, steps=3)
    assert torch.equal(random, torch.random.get_rng_state())
    assert named["one"].training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in base.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert merged.tied.weight is merged.mix.weight
    assert not torch.equal(merged.mix.weight, base.mix.weight)
    assert torch.is_grad_enabled()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(models, tasks):
    named, base = models
    one, same, other = (
        fuse("adamerging", named, base, tasks=tasks, steps=3, batch_size=5, seed=seed).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_models_equal_to_the_base_give_the_base(models, tasks):
    _, base = models
    merged = fuse("adamerging", {"one": base, "two": base}, base, tasks=tasks, steps=2)
    for name, tensor in base.state_dict().items():
        assert torch.equal(merged.state_dict()[name], tensor)


def test_heads_are_shared_objects_and_get_their_flags_back(models, tasks):
    made = []

    class Kept(Blobs):
        def attach(self, trunk: nn.Module) -> nn.Module:
            made.append(Headed(trunk, self.seed).train())
            return made[-1]

    kept = {name: Kept(name=name, seed=task.seed) for name, task in tasks.items()}
    AdaMerging(steps=1).fuse(job_of(models, kept))
    assert len(made) == 2
    for model in made:
        assert model.training
        assert model.head.requires_grad
        assert model.head.grad is None


def test_only_what_is_in_scope_is_merged(models, tasks):
    job = job_of(models, tasks, scope={"include": ["mix.*", "norm.*"]}, heads=("norm.*",))
    fused = AdaMerging(steps=1).fuse(job)
    assert fused.state is not None
    assert set(fused.state) == {"mix.weight", "mix.bias"}
    assert fused.details["coefficients"]["rows"] == ["mix.weight", "mix.bias"]
    with pytest.raises(MethodError, match="scope"):
        AdaMerging().fuse(job_of(models, tasks, scope={"include": ["nothing"]}))


def test_parameters_that_no_model_changed_have_no_coefficients(models, tasks):
    named, base = models
    for module in (base, *named.values()):
        module.register_parameter("empty", nn.Parameter(torch.empty(0, 3)))
    for module in named.values():
        module.inner.load_state_dict(base.inner.state_dict())
    fused = AdaMerging(steps=1).fuse(job_of((named, base), tasks))
    assert fused.state is not None
    changed = {"norm.weight", "norm.bias", "mix.weight", "mix.bias", "scale"}
    assert set(fused.details["coefficients"]["rows"]) == changed
    assert set(fused.state) == {*changed, "tied.weight", "norm.running_mean", "norm.running_var"}
    merged = fuse("adamerging", named, base, tasks=tasks, steps=1)
    assert torch.equal(merged.inner.weight, base.inner.weight)
    assert merged.scale.shape == ()


def test_progress_is_shown_for_every_step(models, tasks):
    shown = []
    job = job_of(models, tasks)
    job = FusionJob(pool=job.pool, tasks=job.tasks, on_progress=lambda *report: shown.append(report))
    AdaMerging(steps=2).fuse(job)
    assert [report[:2] for report in shown] == [(1, 2), (2, 2)]
    assert all(report[2].startswith("entropy ") for report in shown)


def test_test_data_is_refused_unless_the_run_is_transductive(models, tasks):
    named, base = models
    with pytest.raises(ConfigError, match="test data"):
        fuse("adamerging", named, base, tasks=tasks, steps=1, split="test")


def test_a_model_without_a_task_is_an_error_that_names_it(models, tasks):
    del tasks["two"]
    with pytest.raises(MissingCapability, match="adamerging") as error:
        AdaMerging().fuse(job_of(models, tasks))
    assert error.value.where["models"] == "two"


def test_nan_is_an_error_wherever_it_comes_from(models, tasks):
    with pytest.raises(MethodError, match="NaN"):
        AdaMerging(steps=1).fuse(job_of(models, {**tasks, "two": Blobs(name="two", seed=2, broken=True)}))
    models[0]["one"].mix.weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteInput, match="NaN"):
        AdaMerging(steps=1).fuse(job_of(models, tasks))


def state_after(models: Models, tasks: Mapping[str, Any], **parameters: Any) -> Mapping[str, Tensor]:
    fused = AdaMerging(**parameters).fuse(job_of(models, tasks))
    assert fused.state is not None
    return fused.state


def test_without_steps_it_is_task_arithmetic(models, tasks):
    named, base = models
    found = state_after(models, tasks, steps=0, init_coefficient=0.4)
    for name, start in base.named_parameters():
        ends = [model.get_parameter(name).double() for model in named.values()]
        expected = start.double() + 0.4 * sum(end - start.double() for end in ends)
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-6)


def test_learned_coefficients_can_be_used_again(models, tasks):
    fused = AdaMerging(steps=3, learning_rate=0.05).fuse(job_of(models, tasks))
    learned = fused.details["coefficients"]
    again = state_after(models, tasks, steps=0, init_coefficient=learned)
    assert fused.state is not None
    assert all(torch.equal(tensor, again[name]) for name, tensor in fused.state.items())
    with pytest.raises(ConfigError, match="coefficients"):
        AdaMerging(granularity="task", init_coefficient=learned).fuse(job_of(models, tasks))


def test_layers_share_their_coefficients(tasks):
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 8)
            self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.first, *self.layers):
                x = torch.tanh(layer(x))
            return x

    with torch.random.fork_rng():
        torch.manual_seed(0)
        stacks = [Stack().eval() for _ in range(3)]
    job = job_of(({"one": stacks[0], "two": stacks[1]}, stacks[2]), tasks)
    fused = AdaMerging(granularity="layer", steps=1).fuse(job)
    assert fused.details["coefficients"]["rows"] == ["first.weight", "first.bias", "layers.0", "layers.1"]


def test_plus_plus_trims_the_task_vectors_and_elects_signs(models, tasks):
    named, base = models
    names = [name for name, _ in base.named_parameters()]
    found = state_after(models, tasks, steps=0, init_coefficient=1.0, trim="ties", density=0.3)
    deltas = [
        torch.cat([(m.get_parameter(n).float() - base.get_parameter(n)).flatten() for n in names]).detach()
        for m in named.values()
    ]
    kept = round(0.3 * len(deltas[0]))
    trimmed = [torch.where(d.abs() >= d.abs().sort(descending=True).values[kept - 1], d, 0) for d in deltas]
    sign = sum(trimmed).sign()
    update = sum(torch.where(each.sign() == sign, each, 0) for each in trimmed)
    merged = torch.cat([(found[n] - base.get_parameter(n)).flatten() for n in names])
    torch.testing.assert_close(merged, update, rtol=1e-5, atol=1e-6)


def test_the_supervised_objective_sees_labels_and_the_other_does_not(models, tasks):
    pool = TaskPool(tasks, TaskPoolConfig.model_validate({"tasks": {n: {"task": "blobs"} for n in tasks}}))
    job = job_of(models, tasks)
    method = AdaMerging(objective="cross_entropy", steps=30, learning_rate=0.02, batch_size=24)
    guarded = pool.for_adaptation(method.capabilities.tasks)
    fused = method.fuse(replace(job, tasks=guarded))
    losses = fused.details["losses"]["series"]["cross entropy"]
    assert losses[-1] < losses[0]
    assert guarded["one"].used == {"validation with labels": 30 * 24}
    blind = pool.for_adaptation(AdaMerging().capabilities.tasks)
    with pytest.raises(MissingCapability, match="labels"):
        method.fuse(replace(job, tasks=blind))


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(models, tasks, tmp_path):
    method = AdaMerging(steps=6, learning_rate=0.05, batch_size=5)
    whole = method.fuse(job_of(models, tasks))

    def stop(done: int, total: int, message: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    first = replace(job_of(models, tasks), directory=tmp_path / "kept", on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        method.fuse(first)
    steps = []
    second = replace(first, on_progress=lambda done, total, message: steps.append(done))
    resumed = method.fuse(second)
    assert steps == [5, 6]
    assert resumed.details == whole.details
    assert resumed.state is not None
    assert whole.state is not None
    assert all(torch.equal(tensor, resumed.state[name]) for name, tensor in whole.state.items())
    assert method.model_copy(update={"steps": 7}).fuse(second).details != whole.details


def test_what_an_interrupted_training_has_learned_can_be_fused(models, tasks, tmp_path):
    method = AdaMerging(steps=6, learning_rate=0.05, batch_size=5)

    def stop(done: int, total: int, message: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    first = replace(job_of(models, tasks), directory=tmp_path / "kept", on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        method.fuse(first)
    finished = method.fuse(replace(first, finish=True))
    shorter = method.model_copy(update={"steps": 4}).fuse(job_of(models, tasks))
    assert finished.state is not None
    assert shorter.state is not None
    assert finished.details == shorter.details
    assert all(torch.equal(tensor, finished.state[name]) for name, tensor in shorter.state.items())


def test_the_time_that_is_left_is_shown(models, tasks):
    shown = []
    job = replace(job_of(models, tasks), on_progress=lambda *report: shown.append(report))
    AdaMerging(steps=2).fuse(job)
    assert len(shown) == 2
    assert all(re.fullmatch(r"entropy \d\.\d{4}, \d+ s left", message) for _, _, message in shown)


def test_shares_of_the_models_add_up_to_one_and_can_be_used_again(models, tasks):
    named, base = models
    found = state_after(models, tasks, steps=0, normalize=True)
    for name, _ in base.named_parameters():
        mean = sum(model.get_parameter(name).double() for model in named.values()) / 2
        torch.testing.assert_close(found[name].double(), mean, rtol=1e-5, atol=1e-6)
    fused = AdaMerging(steps=5, learning_rate=0.1, normalize=True).fuse(job_of(models, tasks))
    learned = fused.details["coefficients"]
    assert all(sum(row) == pytest.approx(1) and min(row) > 0 for row in learned["values"])
    assert len({value for row in learned["values"] for value in row}) > 2
    assert fused.state is not None
    for again in (True, False):  # as shares, and as plain coefficients
        same = state_after(models, tasks, steps=0, init_coefficient=learned, normalize=again)
        for name, tensor in fused.state.items():
            torch.testing.assert_close(same[name], tensor, rtol=1e-4, atol=1e-5)
    plain = AdaMerging(steps=0, init_coefficient=0.7).fuse(job_of(models, tasks)).details["coefficients"]
    with pytest.raises(ConfigError, match="no shares"):
        state_after(models, tasks, steps=0, init_coefficient=plain, normalize=True)


def test_what_is_averaged_has_no_coefficients(models, tasks):
    named, _ = models
    fused = AdaMerging(steps=3, average=("mix.*", "scale")).fuse(job_of(models, tasks))
    assert set(fused.details["coefficients"]["rows"]) == {
        "inner.weight", "inner.bias", "norm.weight", "norm.bias"
    }  # fmt: skip
    assert fused.state is not None
    for name in ("mix.weight", "tied.weight", "mix.bias", "scale"):
        mean = sum(model.state_dict()[name].double() for model in named.values()) / 2
        torch.testing.assert_close(fused.state[name].double(), mean, rtol=1e-5, atol=1e-6)
