"""Tell plugins what happens during a run. They can watch it, and never break or change it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from fusionbench_core.hookspecs import DECLARATIONS
from fusionbench_core.plugins import trace
from fusionbench_core.plugins.loading import describe
from fusionbench_core.plugins.plugin import Plugin


class Observers:
    """Calls each plugin's observers one at a time, each in its own guard.

    Args:
        plugins: Plugins to tell; those that are not `ok` are left out.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._plugins = [plugin for plugin in plugins if plugin.status == "ok"]
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call every implementation of one observer hook; safe to call from worker threads.

        An implementation takes as many of the arguments as it wants. What it raises becomes a warning.
        """
        if hook in DECLARATIONS:
            raise ValueError(f"{hook} is a declaration, not an observer")
        for plugin in self._plugins:
            implementation = plugin.hooks.get(hook)
            if implementation is None:
                continue
            try:
                with trace.call(plugin.namespace, hook):
                    implementation(**arguments)
            except (Exception, SystemExit) as error:
                self._warn(f"{plugin.namespace}: {hook} raised {describe(error)}")

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, in order, equal failures counted; for the report."""
        with self._lock:
            return [
                text if count == 1 else f"{text} ({count} times)" for text, count in self._failures.items()
            ]

    def __bool__(self) -> bool:
        return any(hook not in DECLARATIONS for plugin in self._plugins for hook in plugin.hooks)

    def _warn(self, text: str) -> None:
        with self._lock:
            self._failures[text] = self._failures.get(text, 0) + 1
