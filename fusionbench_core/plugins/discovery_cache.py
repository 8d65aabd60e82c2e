"""Facts kept between processes for as long as the import path stays as it is.

Reading the metadata of every installed distribution, and importing every plugin for its commands,
takes longer than all else that `fb --help` does. Both answers are therefore stored together with the
state of everything they depend on: names and modification times.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import fusionbench_core
from fusionbench_core import places

if TYPE_CHECKING:
    from fusionbench_core.plugins.plugin import Plugin

_FIELDS = ("namespace", "distribution", "version", "module", "requires", "status", "cause", "metadata")
_SETTLED_SECONDS = 2.0


def read_plugins() -> list[Plugin] | None:
    """The plugins that an earlier process found, or None if anything may have changed since."""
    from fusionbench_core.plugins.plugin import Plugin

    stored = read("plugins")
    if stored is None:
        return None
    try:
        return [Plugin(**{**facts, "metadata": tuple(facts["metadata"])}) for facts in stored]
    except (TypeError, KeyError):
        return None


def write_plugins(plugins: Iterable[Plugin]) -> None:
    """Keep the facts about installed plugins."""
    plugins = list(plugins)
    facts = [{name: getattr(plugin, name) for name in _FIELDS} for plugin in plugins]
    write("plugins", facts, [path for plugin in plugins for path in plugin.metadata])


def read_commands() -> list[tuple[str, str]] | None:
    """Name and summary of the plugins' commands, or None if anything may have changed since."""
    stored = read("commands")
    return None if stored is None else [(name, summary) for name, summary in stored]


def write_commands(commands: Iterable[tuple[str, str]], plugins: Iterable[Plugin]) -> None:
    """Keep the listing of commands; it is read again while the plugins' modules stay untouched."""
    plugins = list(plugins)
    depends = [path for plugin in plugins for path in plugin.metadata]
    for plugin in plugins:
        file = getattr(sys.modules.get(plugin.module), "__file__", None)
        if file is not None:
            depends += [file, os.path.dirname(file)]
    write("commands", list(commands), depends)


def read(kind: str) -> Any:
    """What was kept under a name, or None if anything it depends on has changed."""
    try:
        with open(_file(kind), encoding="utf-8") as stream:
            stored = json.load(stream)
        if stored["state"] != _state() or stored["depends"] != _times(path for path, _ in stored["depends"]):
            return None
        return stored["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(kind: str, value: Any, depends: Iterable[str]) -> None:
    """Keep a JSON value together with the state of the import path and of the files it depends on."""
    state, times = _state(), _times(depends)
    newest = max((modified for _, modified in [*state["entries"], *times]), default=0)
    # On file systems with coarse times a second change in the same tick would go unseen.
    if time.time() - newest / 1e9 < _SETTLED_SECONDS:
        return
    try:
        places.write(_file(kind), json.dumps({"state": state, "depends": times, "value": value}))
    except OSError:
        # A cache that cannot be written costs time, and is no error.
        return


def _file(kind: str) -> str:
    key = zlib.crc32("\0".join([sys.version, *sys.path]).encode("utf-8", "surrogateescape"))
    return os.path.join(places.cache_home(), f"{kind}-{key:08x}.json")


def _state() -> dict[str, Any]:
    settings = os.path.join(places.config_home(), "plugins.json")
    return {
        "core": fusionbench_core.__version__,
        "python": sys.version,
        "allowed": os.environ.get("FB_PLUGINS"),
        "entries": _times([*(entry or "." for entry in sys.path), settings]),
    }


def _times(paths: Iterable[str]) -> list[list[Any]]:
    return [[path, _modified(path)] for path in paths]


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
