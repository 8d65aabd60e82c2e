"""A task, as checks look at it."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fusionbench_core.testing.check import Kind, Violation
from fusionbench_core.testing.subject import Subject

if TYPE_CHECKING:
    from torch import nn

    from fusionbench_core.tasks import Task, TaskResult


@dataclasses.dataclass(frozen=True)
class TaskSubject(Subject):
    """A task evaluator."""

    kind: Kind = dataclasses.field(init=False, default="task")

    def task(self, **parameters: Any) -> Task:
        """The task over its author's offline example.

        Raises:
            Violation: if the author gives no example.
        """
        example = self.cls.example()
        if example is None:
            raise Violation(
                "there is no example to check it on: `example()` gives None",
                reproduce=f"{self.cls.__name__}.example()",
            )
        return self.cls.model_validate({"name": "example", **example, **parameters})

    def model(self, task: Task) -> nn.Module:
        """A new example trunk with the task's head, in eval mode.

        Raises:
            Violation: if the author gives no trunk.
        """
        from fusionbench_core.tasks.attach import attach

        try:
            trunk = self.cls.example_trunk()
        except NotImplementedError:
            raise Violation(
                "there is no trunk to check it with: `example_trunk()` is not given",
                reproduce=f"{self.cls.__name__}.example_trunk()",
            ) from None
        return attach(task, trunk).eval()

    def measure(self, **context: Any) -> TaskResult:
        """The example trunk on the example, both new. Arguments as of `EvalContext`."""
        from fusionbench_core.tasks import EvalContext

        task = self.task()
        return task.evaluate(self.model(task), EvalContext(**context))

    @cached_property
    def measured(self) -> TaskResult:
        """What :meth:`measure` gives on all test data, once for all checks that only look at it."""
        return self.measure()
