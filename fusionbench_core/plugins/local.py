"""A plugin that is one file, named on the command line: `--plugin ./my_method.py`.

Never loaded from the working directory by itself: naming the file is the consent to run it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from fusionbench_core.errors import ConfigError, PluginBroken
from fusionbench_core.plugins.loading import load
from fusionbench_core.plugins.plugin import LOCAL_WAY_OUT, Plugin

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]*\Z")


def load_file(file: Path, installed: Iterable[Plugin]) -> Plugin:
    """Load one file as a plugin; its namespace and module name are the file's stem.

    Raises:
        ConfigError: The file does not exist, or its name cannot be a namespace.
        PluginBroken: It raises when imported, or declares nothing usable.
    """
    path = _checked(file, installed)
    candidate = Plugin(
        namespace=path.stem, distribution=str(path), version="local", module=path.stem, local=True
    )
    plugin = load(candidate, lambda: _import(path))
    if plugin.status != "ok" or not plugin.hooks:
        sys.modules.pop(path.stem, None)
        raise PluginBroken(
            f"the plugin file {file} cannot be used",
            why=plugin.cause or "it implements no hook: mark a function such as fb_methods with @hookimpl",
            printed=plugin.printed.strip() or None,
            traceback=plugin.traceback.strip() or None,
            fix=LOCAL_WAY_OUT,
        )
    return plugin


def _checked(file: Path, installed: Iterable[Plugin]) -> Path:
    path = file.expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(
            f"--plugin {file} is not a Python file",
            why="no such file" if not path.exists() else "a plugin file ends in .py",
            fix="give the path of a file that implements hooks, e.g. --plugin ./my_method.py",
        )
    name = path.stem
    if not _NAMESPACE.match(name):
        raise ConfigError(
            f"--plugin {file}: {name!r} cannot be a namespace",
            why="a namespace is lower-case letters, digits and underscores",
            fix="rename the file, e.g. my_method.py",
        )
    taken = next((plugin.distribution for plugin in installed if plugin.namespace == name), None)
    if taken is None and _shadows(name, path):
        taken = f"the installed module {name!r}"
    if taken is not None:
        raise ConfigError(
            f"--plugin {file}: the name {name!r} is taken", why=f"by {taken}", fix="rename the file"
        )
    return path


def _shadows(name: str, path: Path) -> bool:
    present = sys.modules.get(name)
    if present is not None:
        return getattr(present, "__file__", None) != str(path)
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def _import(path: Path) -> ModuleType:
    if (present := sys.modules.get(path.stem)) is not None:
        return present
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Targets such as `my_method:MyMethod` are resolved by an ordinary import.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
