"""What checks look at: a plugin, or one thing that it declares."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cached_property
from typing import Any

from fusionbench_core.plugins import Plugin
from fusionbench_core.registry import Registry
from fusionbench_core.testing.check import Kind


@dataclasses.dataclass(frozen=True)
class Subject:
    """One thing to check.

    Attributes:
        record: What is declared; None for a plugin as a whole.
        plugin: Which plugin declares it; None for a class that belongs to none.
        registry: Everything that is installed.
    """

    record: Any
    plugin: Plugin | None
    registry: Registry

    kind: Kind = dataclasses.field(init=False, default="plugin")

    @property
    def name(self) -> str:
        """Full name of the record, or the plugin's namespace."""
        if self.record is None:
            return self.plugin.namespace if self.plugin else "?"
        return self.record.full_name

    @cached_property
    def cls(self) -> Any:
        """The class (or function) that the record names."""
        return self.registry.resolve(self.record)

    @property
    def source_file(self) -> str:
        """Path of the file that defines the class."""
        return inspect.getsourcefile(self.cls) or ""
