"""What a measurement gives, and what it leaves as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from fusionbench_core.tasks import EvalContext, Task, TaskResult
from fusionbench_core.tasks.result import wilson_interval
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.task_checks.samples import SURE, Oracle, by_index, measured, require_close
from fusionbench_core.testing.task_subject import TaskSubject

_BATCH_SIZES = (7, 32)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
_BYTES = 1000
"""Of a result's record in JSON, a sample."""


@check("FT-102", level="full")
def deterministic(subject: TaskSubject) -> None:
    """The same model measures the same: twice, whatever mode it is in, and in another process.

    Results are kept and compared by the fingerprints of model and task.

    Fix: measure in eval mode; draw nothing at random; do not let `hash()` or the order of a set decide.
    """
    import torch

    from fusionbench_core.testing import fresh

    first = subject.measured
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4321)
        task = subject.task()
        again = task.evaluate(subject.model(task).train(), EvalContext())
    for words, result in (
        ("a second measurement, of the model in training mode,", again),
        ("a measurement in another process", fresh.run(measured, subject.record, hashseed=1)),
    ):
        if result.fingerprint != first.fingerprint:
            raise Violation(f"{words} has another fingerprint", measured=result.fingerprint)
        if by_index(result, "predicted") != by_index(first, "predicted"):
            raise Violation(f"{words} predicts otherwise")
        require_close(result.metrics, first.metrics, f"{words} gives other numbers")


@check("FT-103")
def model_restored(subject: TaskSubject) -> None:
    """A measurement leaves the model as it was: weights, modes, gradients, hooks, device.

    The model is measured on other tasks afterwards, or trained on.

    Fix: set modes back in a `finally`; remove hooks; write to no parameter and no buffer.
    """
    task = subject.task()
    model = subject.model(task)
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    before = _picture(model)
    task.evaluate(model, EvalContext(limit=16))
    after = _picture(model)
    changed = [words for words in before if before[words] != after[words]]
    if changed:
        raise Violation(f"a measurement changes {', '.join(changed)} of the model")


def _picture(model: Any) -> dict[str, Any]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "the weights": [(name, _bits(tensor)) for name, tensor in tensors],
        "the modes (training or not)": [module.training for module in model.modules()],
        "which parameters need gradients": [each.requires_grad for each in model.parameters()],
        "the gradients": [parameter.grad is None for parameter in model.parameters()],
        "the hooks": [[len(getattr(module, name)) for name in _HOOKS] for module in model.modules()],
        "the device": [str(tensor.device) for _, tensor in tensors],
        "the modules": [name for name, _ in model.named_modules()],
    }


def _bits(tensor: Any) -> bytes:
    from fusionbench_core.checkpoints.checkpoint import hash_tensor

    return hash_tensor(tensor.detach().cpu())


@check("FT-104")
def known_models_score_as_they_must(subject: TaskSubject) -> None:
    """Metrics are in their range; models that are always right, or always say the same, score as they must.

    A label that is off by one, or a split sorted otherwise than its labels, is not seen in a number
    of a real model.

    Fix: compare predictions with the labels of the same samples; state ranges in `metrics()`.
    """
    import torch

    task = subject.task()
    described = task.metrics()
    for name, value in subject.measured.metrics.items():
        if name in described and value not in described[name]:
            metric = described[name]
            raise Violation(f"{name} is out of range", measured=value, bound=f"{metric.low} … {metric.high}")
    if not {"batches", "labels", "logits"} <= set(subject.record.provides):
        return
    batches = list(task.batches("test", labelled=True))
    labels = torch.cat([batch.labels.flatten() for batch in batches if batch.labels is not None])
    classes = max(len(task.card().labels), int(labels.max()) + 1)

    def score(answer: Callable[[torch.Tensor], torch.Tensor]) -> TaskResult:
        return task.evaluate(Oracle(batches, answer), EvalContext())

    def sure_of(classes_: torch.Tensor) -> torch.Tensor:
        return SURE * torch.nn.functional.one_hot(classes_, classes).float()

    right = score(sure_of)
    wanted = {name: metric.perfect for name, metric in described.items()}
    require_close(right.metrics, wanted, "a model that is always right does not score as declared")
    constant = score(lambda labels: sure_of(torch.zeros_like(labels))).metrics
    even = score(lambda labels: torch.zeros(*labels.shape, classes)).metrics
    share = float((labels == 0).double().mean())
    facts = (
        ("accuracy", constant, share, "a model that always says class 0 does not score that class's share"),
        ("loss", even, math.log(classes), "an undecided model does not score log(classes)"),
    )
    for name, found, value, words in facts:
        if name in described:
            require_close({name: found[name]}, {name: value}, words)


@check("FT-105")
def batch_size_irrelevant(subject: TaskSubject) -> None:
    """The batch size does not change a result.

    It is chosen by the memory that there is.

    Fix: average over samples, not over batches; keep the last, smaller batch; mask padding.
    """
    first = subject.measured
    for size in _BATCH_SIZES:
        result = subject.measure(batch_size=size)
        if result.n != first.n:
            raise Violation(f"batches of {size} measure {result.n} samples", bound=first.n)
        require_close(result.metrics, first.metrics, f"batches of {size} give other numbers")


@check("FT-107")
def samples_sum_to_metric(subject: TaskSubject) -> None:
    """The per-sample record gives the metrics.

    Paired tests between two models, and tables of errors, are made of it.

    Fix: record `index`, `predicted`, `label` and `loss` of every sample that was measured.
    """
    result = subject.measured
    samples = result.samples
    if not samples or not result.samples_sha256:
        raise Violation("a result has no per-sample record, or no hash of it")
    found = {}
    if {"predicted", "label"} <= samples.keys():
        hits = [p == y for p, y in zip(samples["predicted"], samples["label"])]
        found["accuracy"] = sum(hits) / len(hits)
    for name in samples.keys() & result.metrics.keys():
        found[name] = math.fsum(samples[name]) / len(samples[name])
    if not found.keys() & result.metrics.keys():
        raise Violation("the record gives none of the metrics", measured=sorted(samples))
    shared = found.keys() & result.metrics.keys()
    require_close(
        {name: found[name] for name in shared},
        {name: result.metrics[name] for name in shared},
        "the per-sample record gives another number",
    )


@check("FT-108", requires=("FT-104",))
def interval_declared(subject: TaskSubject) -> None:
    """Confidence intervals are of the method that is declared, and there is at least one.

    Two models that differ by less than the noise of five hundred samples are not different.

    Fix: name the method in `Metric.interval`, and give each such metric its interval.
    """
    result, described = subject.measured, subject.task().metrics()
    declared = {name for name, metric in described.items() if metric.interval}
    if not declared:
        raise Violation("no metric has a confidence interval", bound="one, e.g. `wilson`")
    if declared != set(result.intervals):
        raise Violation("intervals are not as declared", measured=set(result.intervals), bound=declared)
    for name in declared:
        low, high = result.intervals[name]
        value = result.metrics[name]
        if not low <= value <= high or low not in described[name] or high not in described[name]:
            raise Violation(f"{name} is not in its interval", measured=value, bound=(low, high))
        if described[name].interval == "wilson":
            wanted = wilson_interval(round(value * result.n), result.n)
            if max(abs(low - wanted[0]), abs(high - wanted[1])) > 1e-9:
                raise Violation(f"the interval of {name} is not Wilson's", measured=(low, high), bound=wanted)


@check("FT-109")
def logits_and_loss_agree(subject: TaskSubject) -> None:
    """Batches, the attached model and `loss` give what `evaluate` measures.

    Methods learn on the one and are judged by the other.

    Fix: let `evaluate` go through `batches`, the attached model and the same loss.
    """
    import torch

    if not {"batches", "labels", "logits"} <= set(subject.record.provides):
        raise Inapplicable("it provides no batches, labels or logits")
    task = subject.task()
    model = subject.model(task).eval()
    total, predicted = _run(task, model, torch)
    result = subject.measured
    recorded = by_index(result, "predicted")
    if recorded and recorded != predicted:
        differing = sum(recorded.get(place) != each for place, each in predicted.items())
        raise Violation("the attached model predicts otherwise than `evaluate` records", measured=differing)
    if "loss" in result.metrics and "loss" in subject.record.provides:
        require_close(
            {"loss": total / len(predicted)},
            {"loss": result.metrics["loss"]},
            "the mean of `loss` over batches is not the loss that `evaluate` gives",
        )


def _run(task: Task, model: Any, torch: Any) -> tuple[float, dict[int, int]]:
    total, predicted = 0.0, {}
    with torch.no_grad():
        for batch in task.batches("test", labelled=True):
            logits = model(**batch.inputs)
            assert batch.labels is not None
            total += float(task.loss(logits, batch.labels)) * len(batch)
            predicted |= dict(zip(batch.indices.tolist(), logits.argmax(1).tolist()))
    return total, predicted


@check("FT-113", required=False, level="full")
def results_stay_small(subject: TaskSubject) -> None:
    """A result takes little memory: numbers a sample, no logits, features or inputs.

    Results of many models and tasks are kept at once, and written as JSON.

    Fix: record a handful of numbers a sample.
    """
    result = subject.measured
    try:
        size = len(json.dumps(result.to_json(samples=True)))
    except TypeError as error:
        raise Violation(f"a result cannot be written as JSON: {error}") from error
    if size > _BYTES * (result.n + 10):
        raise Violation("a result is large", measured=f"{size // result.n} bytes a sample", bound=_BYTES)
