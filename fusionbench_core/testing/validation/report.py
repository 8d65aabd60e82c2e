"""What validating a plugin showed, as data and as a badge."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["ok", "failed", "unavailable", "broken"]


@dataclass(frozen=True)
class OwnTests:
    """What came out of the plugin's own tests.

    Attributes:
        status: `ok`, `failed`, or `none` if there are no tests.
        counts: `passed`, `failed` and `skipped`.
    """

    status: Literal["ok", "failed", "none"]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {word}" for word, count in self.counts.items() if count)
        return told or ("no tests" if self.status == "none" else self.status)


@dataclass(frozen=True)
class Run:
    """A plugin with one core.

    Attributes:
        asked: `lowest`, `newest`, or both, if they are the same.
        core: The core's version; the one that was asked for, if it cannot be had.
        status: `ok`; `failed`: checks or tests did; `unavailable`: there is no such core; `broken`: the
            plugin cannot be installed or checked at all.
        why: The reason, if it is not `ok`.
        check: The report of `fb plugin check`, schema `fusionbench-check/1`.
        tests: The plugin's own tests.
    """

    asked: tuple[str, ...]
    core: str
    status: Outcome
    why: str = ""
    check: Mapping[str, Any] | None = None
    tests: OwnTests | None = None


@dataclass(frozen=True)
class Validation:
    """A plugin with every core that was asked for.

    Attributes:
        plugin: Distribution and version.
        wheel: Name of the wheel.
        sha256: Hash of the wheel.
        requires: Versions of the core that it claims.
        runs: One for each core.
        seconds: Wall time.
    """

    plugin: str
    wheel: str
    sha256: str
    requires: str
    runs: tuple[Run, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether checks and tests passed with every core that was asked for."""
        return bool(self.runs) and all(run.status == "ok" for run in self.runs)

    @property
    def exit_code(self) -> int:
        """0; 1 where something failed; 5 where a core cannot be had, and nothing else is wrong."""
        if self.ok:
            return 0
        return 5 if all(run.status in ("ok", "unavailable") for run in self.runs) else 1

    def to_json(self) -> str:
        """Schema `fusionbench-validation/1`."""
        facts = {
            "schema": "fusionbench-validation/1",
            "plugin": self.plugin,
            "ok": self.ok,
            "wheel": self.wheel,
            "sha256": self.sha256,
            "requires": self.requires,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "seconds": self.seconds,
            "runs": [
                {
                    "asked": list(run.asked),
                    "core": run.core,
                    "status": run.status,
                    "why": run.why,
                    "check": run.check,
                    "tests": run.tests and {"status": run.tests.status, **run.tests.counts},
                }
                for run in self.runs
            ],
        }
        return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"

    def to_badge(self) -> str:
        """An endpoint badge of shields.io."""
        if self.ok:
            message, colour = f"conformant with {' and '.join(run.core for run in self.runs)}", "brightgreen"
        elif self.exit_code == 5:
            message, colour = "core not available", "lightgrey"
        else:
            message, colour = "not conformant", "red"
        badge = {"schemaVersion": 1, "label": "FusionBench", "message": message, "color": colour}
        return json.dumps(badge) + "\n"
