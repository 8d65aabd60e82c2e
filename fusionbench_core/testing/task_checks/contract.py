"""Cards, splits, labels, limits, the offline example."""

from __future__ import annotations

from typing import Any, get_args

from fusionbench_core.errors import ConfigError, MissingCapability
from fusionbench_core.tasks.task import EvalContext, Split, Task
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.sandbox import no_network
from fusionbench_core.testing.task_checks.samples import contents
from fusionbench_core.testing.task_subject import TaskSubject
from fusionbench_core.testing.tolerance import same_bits

_LIMIT = 5
_SHOWN = 256
"""Samples of a split that are looked for in the test split."""


def _needs(subject: TaskSubject, *provided: str) -> None:
    missing = sorted(set(provided) - set(subject.record.provides))
    if missing:
        raise Inapplicable(f"it does not provide {', '.join(missing)}")


@check("FT-101")
def facts_stated(subject: TaskSubject) -> None:
    """The task says what its data is, where it comes from and under which licence, and what it measures.

    A number whose data, split, version and direction are unknown cannot be compared with any other.

    Fix: fill in the card; list the metrics in the record, and describe them in `metrics()`.
    """
    task = subject.task()
    card = task.card()
    for name in ("title", "source", "licence"):
        if str(getattr(card, name)).strip().lower() in ("", "unknown", "none"):
            raise Violation(f"the card gives no {name}", measured=repr(getattr(card, name)))
    if card.version < 1:
        raise Violation("the card has no version", measured=card.version, bound="1, 2, …")
    if "test" not in card.splits or not all(count > 0 for count in card.splits.values()):
        raise Violation("the card gives no sizes of its splits", measured=dict(card.splits))
    if unknown := set(card.splits) - set(get_args(Split)):
        raise Violation("the card has splits of other names", measured=sorted(unknown), bound=get_args(Split))
    if not task.fingerprint() or task.fingerprint() != subject.task().fingerprint():
        raise Violation("two tasks of the same parameters have different fingerprints, or none")
    described, declared = task.metrics(), set(subject.record.metrics)
    if not declared or declared != set(described):
        raise Violation("metrics are not described", measured=sorted(described), bound=sorted(declared))
    for name, metric in described.items():
        if metric.perfect not in metric:
            raise Violation(f"the perfect {name} is out of its range", measured=metric.perfect)
    if set(subject.measured.metrics) != declared:
        found = sorted(subject.measured.metrics)
        raise Violation("a result has other metrics than declared", measured=found, bound=sorted(declared))


@check("FT-106", requires=("FT-105",))
def limit_respected(subject: TaskSubject) -> None:
    """A limit takes the first samples, and results say how many there were.

    A quick look at a hundred samples must not pass for the whole split.

    Fix: stop after `limit` samples in `batches`; give `n` and the split that were really measured.
    """
    task = subject.task()
    size = task.card().splits["test"]
    steps: list[tuple[int, int]] = []
    model = subject.model(task)
    limited = task.evaluate(
        model,
        EvalContext(limit=_LIMIT, batch_size=2, on_progress=lambda done, total: steps.append((done, total))),
    )
    for words, result, wanted in (
        (f"with limit {_LIMIT}", limited, min(_LIMIT, size)),
        ("without a limit", subject.measured, size),
        ("with a limit beyond its size", subject.measure(limit=size + 1), size),
    ):
        if result.n != wanted or result.split != "test":
            found = f"{result.n} of {result.split}"
            raise Violation(f"a result {words} counts wrongly", measured=found, bound=f"{wanted} of test")
        if lengths := {name: len(column) for name, column in result.samples.items() if len(column) != wanted}:
            raise Violation(
                f"the per-sample record {words} has another length", measured=lengths, bound=wanted
            )
    if steps and steps[-1] != (limited.n, limited.n):
        raise Violation("the progress does not end where it should", measured=steps[-1], bound=limited.n)
    _require_counts(task)


def _require_counts(task: Task) -> None:
    for split, count in task.card().splits.items():
        few = min(_LIMIT, count)
        for limit, wanted in ((None, count), (_LIMIT, few)):
            if _places(task, split, limit=limit) != list(range(wanted)):
                words = f"split {split} with limit {limit} does not give its first samples, each once"
                raise Violation(
                    words, measured=_places(task, split, limit=limit)[:8], bound=f"0 … {wanted - 1}"
                )
        if len(set(_places(task, split, limit=_LIMIT, seed=3))) != few:
            raise Violation(f"shuffled, split {split} ignores its limit", bound=few)


def _places(task: Task, split: Any, **options: Any) -> list[int]:
    batches = task.batches(split, labelled=False, batch_size=32, **options)
    return sorted(int(place) for batch in batches for place in batch.indices)


@check("FT-110")
def labels_only_when_asked(subject: TaskSubject) -> None:
    """Unlabelled batches carry no labels, and labelled ones class indices for every sample.

    Methods that adapt without labels would cheat without knowing.

    Fix: `labels=None` unless `labelled`; never put labels among the inputs.
    """
    import torch

    _needs(subject, "batches", "labels")
    task = subject.task()
    pairs = zip(
        task.batches("test", labelled=True, limit=64, batch_size=32),
        task.batches("test", labelled=False, limit=64, batch_size=32),
    )
    for labelled, bare in pairs:
        if bare.labels is not None:
            raise Violation("unlabelled batches carry labels")
        if labelled.labels is None or labelled.labels.shape[:1] != (len(labelled),):
            raise Violation("labelled batches do not carry labels of every sample")
        classes = len(task.card().labels)
        if int(labelled.labels.min()) < 0 or (classes and int(labelled.labels.max()) >= classes):
            raise Violation("a label is none of the classes", measured=labelled.labels.max(), bound=classes)
        for name, tensor in bare.inputs.items():
            if tensor.shape == labelled.labels.shape and torch.equal(tensor.long(), labelled.labels):
                raise Violation(f"the input {name!r} of unlabelled batches is the labels")
        if set(bare.inputs) != set(labelled.inputs):
            raise Violation(
                "labelled and unlabelled batches have different inputs", measured=set(bare.inputs)
            )


@check("FT-111")
def test_data_kept_apart(subject: TaskSubject) -> None:
    """Test data is not served as another split, and to methods only where the run says so.

    A method that saw what it is scored on looks better than it is.

    Fix: give each split its own samples; name only the splits that there are on the card.
    """
    from fusionbench_core.tasks.adaptation import AdaptationTask

    _needs(subject, "batches")
    task = subject.task()
    for guarded, labelled in ((AdaptationTask(task), False), (AdaptationTask(task, transductive=True), True)):
        try:
            next(iter(guarded.batches("test", labelled=labelled)))
        except (ConfigError, MissingCapability):
            continue
        raise Violation("a method is served test data that it may not see")
    test = set(contents(task, "test"))
    for split in task.card().splits:
        if split == "test":
            continue
        served = contents(task, split, limit=_SHOWN)
        share = sum(each in test for each in served) / len(served)
        if share > 0.5:
            raise Violation(
                f"split {split} serves test data", measured=f"{share:.0%} of its samples", bound="50 %"
            )


@check("FT-112")
def example_is_offline(subject: TaskSubject) -> None:
    """The example needs no network, and its trunk is the same at every call.

    Checks, tutorials and continuous integration run where there is no network.

    Fix: ship the example's data with the plugin; build the trunk from a config, with a fixed seed.
    """
    with no_network() as attempts:
        result = subject.measure(limit=_LIMIT)
    if attempts:
        raise Violation("the example reaches for the network", measured=attempts[:3])
    if not result.n:
        raise Violation("the example has no test data")
    one, other = (subject.cls.example_trunk().state_dict() for _ in range(2))
    if name := same_bits(one, other):
        raise Violation(f"two example trunks differ in {name}", reproduce="example_trunk()")
