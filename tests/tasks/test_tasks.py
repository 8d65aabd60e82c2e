"""Tasks: measuring, guarding data, pools, statistics."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
import toy
from torch import nn

from fusionbench_core import (
    AdaptationTask,
    ConfigError,
    EvalContext,
    MissingCapability,
    Predictor,
    TaskError,
    TaskResult,
    wilson_interval,
)
from fusionbench_core.tasks.attach import attach
from fusionbench_core.tasks.pool import ResultStore, TaskPool, TaskPoolConfig


class Fixed(nn.Module):
    """Logits that say class `guess`, with a margin of 2 nats."""

    def __init__(self, guess: int) -> None:
        super().__init__()
        self.guess = guess
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        logits = torch.zeros(len(x), 3)
        logits[:, self.guess] = 2.0
        return self.dropout(logits)


def blobs(**parameters) -> toy.Blobs:
    return toy.Blobs(name="blobs", **parameters)


def pool(**tasks) -> TaskPool:
    return TaskPool(tasks, TaskPoolConfig(tasks={name: {} for name in tasks}))


def test_accuracy_loss_and_interval_of_a_constant_predictor_are_the_formulas():
    result = blobs(samples=60).evaluate(Fixed(1), EvalContext())
    normaliser = math.log(math.exp(2) + 2)
    assert result.metrics["accuracy"] == 20 / 60
    assert result.metrics["loss"] == pytest.approx((20 * (normaliser - 2) + 40 * normaliser) / 60, rel=1e-6)
    assert result.n == 60
    record = json.dumps([list(range(60)), [1] * 60, [i % 3 for i in range(60)]], separators=(",", ":"))
    assert result.samples_sha256 == hashlib.sha256(record.encode()).hexdigest()


def test_wilson_interval_equals_the_published_example():
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263 and 15 of 148.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_results_do_not_depend_on_the_batch_size(size):
    expected = blobs().evaluate(Fixed(2), EvalContext(batch_size=64))
    result = blobs().evaluate(Fixed(2), EvalContext(batch_size=size))
    assert result.metrics["accuracy"] == expected.metrics["accuracy"]
    assert result.metrics["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-6)
    assert result.samples_sha256 == expected.samples_sha256


def test_the_model_is_as_it_was_and_measured_in_eval_mode():
    model = Fixed(0).train()
    first, second = (blobs().evaluate(model, EvalContext()) for _ in range(2))
    assert first.metrics == second.metrics
    assert model.training
    assert model.dropout.training


def test_the_limit_is_kept_and_counted():
    assert blobs().evaluate(Fixed(0), EvalContext(limit=10)).n == 10


def test_nan_logits_are_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), float("nan"))

    with pytest.raises(TaskError, match="NaN"):
        blobs().evaluate(Broken(), EvalContext())


def test_a_result_survives_its_json():
    result = blobs().evaluate(Fixed(0), EvalContext())
    again = TaskResult.from_json(json.loads(json.dumps(result.to_json(samples=True))))
    assert again == result


def test_test_data_is_refused_unless_the_run_is_transductive():
    with pytest.raises(ConfigError, match="transductive"):
        AdaptationTask(blobs()).batches("test")
    open_task = AdaptationTask(blobs(), transductive=True, labels=True)
    served = list(open_task.batches("test", limit=10))
    assert all(batch.labels is None for batch in served)
    assert open_task.used == {"test": 10}
    with pytest.raises(MissingCapability, match="labels"):
        open_task.batches("test", labelled=True)


def test_labels_are_refused_unless_declared():
    with pytest.raises(MissingCapability, match="labels"):
        AdaptationTask(blobs()).batches("train", labelled=True)
    batch = next(AdaptationTask(blobs(), labels=True).batches("train", labelled=True))
    assert batch.labels is not None


def test_endless_batches_are_shuffled_anew_and_deterministic():
    task = AdaptationTask(blobs(samples=8))

    def first(seed):
        stream = task.endless("train", seed=seed, batch_size=4)
        return [next(stream).indices.tolist() for _ in range(4)]

    assert first(1) == first(1) != first(2)
    assert sorted(first(1)[0] + first(1)[1]) == list(range(8))
    assert first(1)[:2] != first(1)[2:]


def test_an_ensemble_combines_the_logits_of_attached_members():
    class Mean(Predictor):
        def combine(self, outputs):
            return outputs.mean(0)

    members = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    model = attach(blobs(), Mean(members))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = (members["a"](x) + members["b"](x)) / 2
    torch.testing.assert_close(model(x=x), expected)


def test_a_failing_task_keeps_the_results_of_the_others(tmp_path):
    tasks = pool(good=toy.Blobs(name="good"), bad=toy.Blobs(name="bad", fail=True))
    store = ResultStore(tmp_path, "hash")
    with pytest.raises(TaskError, match="1 of 2 tasks"):
        tasks.evaluate(Fixed(0), store=store)
    seen = []
    with pytest.raises(TaskError):
        tasks.evaluate(
            Fixed(0), store=store, on_result=lambda result, cached: seen.append((result.task, cached))
        )
    assert seen == [("good", True)]


def test_results_of_another_model_are_not_reused(tmp_path):
    tasks = pool(good=toy.Blobs(name="good"))
    tasks.evaluate(Fixed(0), store=ResultStore(tmp_path, "one"))
    seen = []
    tasks.evaluate(
        Fixed(1), store=ResultStore(tmp_path, "two"), on_result=lambda result, cached: seen.append(cached)
    )
    assert seen == [False]
