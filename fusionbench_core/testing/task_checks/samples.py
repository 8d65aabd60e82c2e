"""What checks of tasks share: models that know the answers, contents of samples, closeness of numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core.records import TaskRecord
from fusionbench_core.tasks import Batch, Task, TaskResult
from fusionbench_core.testing.check import Inapplicable, Violation

SURE = 100.0
"""Logit of a model that has no doubt: the cross-entropy of the right answer is 0 in float32."""

_K = 256


class Oracle(nn.Module):
    """Gives logits by the labels of samples that it was shown beforehand.

    Args:
        batches: Labelled batches; a forward pass must be of one of them.
        answer: `(n,)` labels -> logits `(n, classes)`.
    """

    def __init__(self, batches: list[Batch], answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.trunk = nn.Identity()
        self._batches, self._answer = batches, answer

    def forward(self, *arguments: Tensor, **inputs: Tensor) -> Tensor:
        """Logits of a batch that is known.

        Raises:
            Inapplicable: for another one.
        """
        given = [*arguments, *inputs.values()]
        for batch in self._batches:
            own = list(batch.inputs.values())
            if len(own) == len(given) and all(map(torch.equal, own, given)):
                assert batch.labels is not None
                return self._answer(batch.labels)
        raise Inapplicable("`evaluate` measures other batches than `batches` gives")


def contents(task: Task, split: Any, limit: int | None = None) -> list[bytes]:
    """A hash of the inputs of each sample, one by one, as batches are padded."""
    found = []
    for batch in task.batches(split, labelled=False, limit=limit, batch_size=1):
        digest = hashlib.sha256()
        for name, tensor in sorted(batch.inputs.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found.append(digest.digest())
    return found


def by_index(result: TaskResult, column: str) -> dict[int, Any]:
    """Position of a sample in its split -> its value in a column of the per-sample record."""
    samples = result.samples
    if "index" not in samples or column not in samples:
        return {}
    return dict(zip(samples["index"], samples[column]))


def require_close(found: Mapping[str, float], wanted: Mapping[str, float], what: str) -> None:
    """Compare numbers up to what float32 rounds in another order of summation.

    Raises:
        Violation: naming the metric that differs.
    """
    if found.keys() != wanted.keys():
        raise Violation(f"{what}: other metrics", measured=sorted(found), bound=sorted(wanted))
    for name, value in wanted.items():
        allowed = _K * torch.finfo(torch.float32).eps * max(1.0, abs(value))
        if not abs(found[name] - value) <= allowed:
            raise Violation(f"{what}: {name} differs", measured=found[name], bound=f"{value} ± {allowed:.1g}")


def measured(record: TaskRecord) -> TaskResult:
    """The result of a task's example; for another process."""
    from fusionbench_core.testing.subjects import subject_of
    from fusionbench_core.testing.task_subject import TaskSubject

    subject = subject_of(record)
    assert isinstance(subject, TaskSubject)
    return subject.measure()
