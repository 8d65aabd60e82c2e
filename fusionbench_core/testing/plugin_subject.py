"""A plugin as a whole, as checks look at it."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fusionbench_core.testing.check import Inapplicable
from fusionbench_core.testing.subject import Subject

if TYPE_CHECKING:
    from fusionbench_core.testing.package_checks.fresh import Loaded, Resolved


@dataclasses.dataclass(frozen=True)
class PluginSubject(Subject):
    """A plugin as a whole: its distribution, its light module, its records."""

    @cached_property
    def distribution(self) -> Any:
        """The installed distribution, as importlib-metadata gives it.

        Raises:
            Inapplicable: if the plugin is one file, or several distributions claim its namespace.
        """
        import importlib_metadata

        if not self.module or self.plugin is None or self.plugin.local:
            raise Inapplicable("a plugin file has no distribution")
        return importlib_metadata.distribution(self.plugin.distribution)

    @property
    def module(self) -> str:
        """The light module.

        Raises:
            Inapplicable: if several distributions claim the plugin's namespace.
        """
        if self.plugin is None or self.plugin.status == "conflict":
            raise Inapplicable("several distributions claim its namespace")
        return self.plugin.module

    @cached_property
    def loaded(self) -> Loaded:
        """What loading it does in a process where nothing else happened."""
        from fusionbench_core.testing.package_checks.fresh import loaded

        return loaded(self)

    @cached_property
    def resolved(self) -> Resolved:
        """What importing all that it declares does in such a process."""
        from fusionbench_core.testing.package_checks.fresh import resolved

        return resolved(self)
