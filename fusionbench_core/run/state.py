"""What a run knows so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fusionbench_core.artefact.manifest import Manifest
from fusionbench_core.engine.plan import Plan
from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.prepare import Prepared
from fusionbench_core.tasks.result import TaskResult


@dataclass
class Run:
    """What a run knows so far; observers see it.

    Attributes:
        prepared: Config, method, pools, options.
        directory: Where it writes.
        plan: Set by the planning stage.
        manifest: Set when the artefact is written.
        results: Task -> result, filled as tasks are measured.
        baselines: Results of the base, the experts and others: recorded, or measured if the config asks.
        timings: Stage -> seconds.
        details: What the method says about itself.
        tuning: What was tried on the validation split.
    """

    prepared: Prepared
    directory: RunDirectory
    command: list[str] = field(default_factory=list)
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    plan: Plan | None = None
    manifest: Manifest | None = None
    model_info: dict[str, int] = field(default_factory=dict)
    results: dict[str, TaskResult] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    adaptation: dict[str, dict[str, int]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def model_directory(self) -> Path:
        """Where the artefact is, or will be."""
        wanted = self.prepared.config.merged_model_save_path
        return Path(wanted) if wanted else self.directory.model
