"""Finding, loading, disabling and watching plugins.

Light: nothing here imports torch, pydantic, hydra or rich, and no plugin can make any of it fail.
The names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench_core.plugins.collection import Plugins, configure, installed_plugins, load_plugins
    from fusionbench_core.plugins.discovery import find
    from fusionbench_core.plugins.observers import Observers
    from fusionbench_core.plugins.plugin import Plugin, Status

__all__ = [
    "Observers",
    "Plugin",
    "Plugins",
    "Status",
    "configure",
    "find",
    "installed_plugins",
    "load_plugins",
]

_MODULES = {"find": "discovery", "Observers": "observers", "Plugin": "plugin", "Status": "plugin"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'collection')}"), name)
