"""New plugin packages: complete, installable, and conformant before a line is changed."""

from fusionbench_core.scaffold.names import Names, names_for
from fusionbench_core.scaffold.project import KINDS, Kind, new_plugin, render

__all__ = ["KINDS", "Kind", "Names", "names_for", "new_plugin", "render"]
