"""All that came out of checking one plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fusionbench_core import __version__
from fusionbench_core.testing.result import Result, conformant


@dataclass(frozen=True)
class CheckReport:
    """All results of one plugin.

    Attributes:
        plugin: Distribution and version, or the file.
        level: `fast` or `full`.
        results: In the order they ran.
        core: Version of the core, and so of the kit.
        seconds: Wall time.
    """

    plugin: str
    level: str
    results: tuple[Result, ...]
    core: str = __version__
    seconds: float = 0.0

    @property
    def conformant(self) -> bool:
        """Whether all required checks passed."""
        return bool(self.results) and conformant(self.results)

    def count(self, status: str) -> int:
        """Number of results with that status."""
        return sum(result.status == status for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """The machine-readable report: schema `fusionbench-check/1`."""
        return {
            "schema": "fusionbench-check/1",
            "plugin": self.plugin,
            "core": self.core,
            "level": self.level,
            "conformant": self.conformant,
            "seconds": self.seconds,
            "counts": {s: self.count(s) for s in sorted({result.status for result in self.results})},
            "results": [result.to_json() for result in self.results],
        }
