"""Finding, loading, disabling and watching plugins.

Light: nothing here imports torch, pydantic, hydra or rich, and no plugin can make any of it fail.
"""

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
