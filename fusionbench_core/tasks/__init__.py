"""The contract of tasks: data, a head to attach, and a measurement."""

from fusionbench_core.tasks.classification import ClassificationTask
from fusionbench_core.tasks.metric import Metric
from fusionbench_core.tasks.result import TaskResult
from fusionbench_core.tasks.task import Batch, EvalContext, Task, TaskCard

__all__ = ["Batch", "ClassificationTask", "EvalContext", "Metric", "Task", "TaskCard", "TaskResult"]
