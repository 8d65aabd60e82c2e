"""What a method sees of a task: data it may adapt to, and nothing it may not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor, nn

from fusionbench_core.errors import ConfigError, MissingCapability, TaskError
from fusionbench_core.tasks.task import Batch, Split, Task


class AdaptationTask:
    """A guarded task: no test data unless the run is transductive, no labels unless they were declared.

    Args:
        task: The task behind.
        transductive: Whether test inputs (never their labels) may be used.
        labels: Whether the method declares a need of labels.
    """

    def __init__(self, task: Task, *, transductive: bool = False, labels: bool = False) -> None:
        self._task = task
        self._transductive = transductive
        self._labels = labels
        self.name = task.name
        self.used: dict[str, int] = {}
        """Split, and whether with labels -> number of samples served so far, for the report."""

    def attach(self, trunk: nn.Module) -> nn.Module:
        """`trunk` with the task's head; see `Task.attach`."""
        return self._task.attach(trunk)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of a batch; see `Task.loss`."""
        return self._task.loss(logits, labels)

    def fingerprint(self) -> str:
        """The task's fingerprint."""
        return self._task.fingerprint()

    def batches(
        self,
        split: Split,
        *,
        labelled: bool = False,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        """Batches of a split, once through.

        Raises:
            ConfigError: for test data in a run that is not transductive.
            MissingCapability: for labels the method did not declare.
        """
        if split == "test" and not self._transductive:
            raise ConfigError(
                f"the method asks for test data of task {self.name!r}",
                why="adapting to the data that is scored afterwards flatters the result",
                fix="use split validation or train, or say taskpool.transductive=true: the report tells",
            )
        if labelled and (not self._labels or split == "test"):
            raise MissingCapability(
                f"the method asks for labels of task {self.name!r} (split {split}) that it may not see",
                fix='declare `tasks=("labels", …)` in the method\'s record; test labels are never served',
            )
        return self._serve(split, labelled, limit, seed, batch_size)

    def endless(self, split: Split, *, seed: int, batch_size: int, labelled: bool = False) -> Iterator[Batch]:
        """Batches without end, shuffled anew in every round.

        Raises:
            TaskError: if the split is empty.
        """
        for epoch in itertools.count():
            batch = None
            for batch in self.batches(split, labelled=labelled, seed=seed + epoch, batch_size=batch_size):
                yield batch
            if batch is None:
                raise TaskError(f"task {self.name} has no samples in split {split!r}")

    def recall(self, split: Split, *, labelled: bool, limit: int) -> None:
        """Count samples that were served in an earlier run, whose outcome was kept."""
        self._count(split, labelled, min(limit, self._task.card().splits.get(split, limit)))

    def _serve(
        self, split: Split, labelled: bool, limit: int | None, seed: int | None, size: int
    ) -> Iterator[Batch]:
        for batch in self._task.batches(split, labelled=labelled, limit=limit, seed=seed, batch_size=size):
            self._count(split, labelled, len(batch))
            yield batch

    def _count(self, split: Split, labelled: bool, samples: int) -> None:
        key = f"{split} with labels" if labelled else split
        self.used[key] = self.used.get(key, 0) + samples
