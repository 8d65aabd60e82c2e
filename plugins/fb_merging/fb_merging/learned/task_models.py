"""The trunk under the heads of all tasks: the core's, shared with other plugins."""

from __future__ import annotations

from fusionbench_core import TaskModels, frozen, mean_entropy, pull_back, tasks_of

__all__ = ["TaskModels", "frozen", "mean_entropy", "pull_back", "tasks_of"]
