"""Facts about installed plugins, kept between processes until the import path changes."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fusionbench_core
from fusionbench_core.plugins.places import cache_home
from fusionbench_core.plugins.plugin import Plugin

_FIELDS = (
    "namespace",
    "distribution",
    "version",
    "module",
    "requires",
    "status",
    "cause",
    "metadata",
)
_SETTLED_SECONDS = 2.0


def read() -> list[Plugin] | None:
    """The plugins found by an earlier process, or None if anything may have changed since."""
    try:
        stored = json.loads(_file().read_text(encoding="utf-8"))
        if stored["path"] != _path_state():
            return None
        plugins = [Plugin(**{**facts, "metadata": tuple(facts["metadata"])}) for facts in stored["plugins"]]
        return plugins if stored["metadata"] == _metadata_state(plugins) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(plugins: list[Plugin]) -> None:
    """Keep the facts. A cache that cannot be written is no error."""
    path, metadata = _path_state(), _metadata_state(plugins)
    newest = max((state for _, state in [*path["entries"], *metadata]), default=0)
    # On file systems with coarse times a second change in the same tick would go unseen.
    if time.time() - newest / 1e9 < _SETTLED_SECONDS:
        return
    facts = [{name: asdict(plugin)[name] for name in _FIELDS} for plugin in plugins]
    text = json.dumps({"path": path, "metadata": metadata, "plugins": facts})
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError:
        return


def _file() -> Path:
    name = "-".join(str(part) for part in sys.version_info[:2])
    return cache_home() / f"plugins-{name}-{_digest(os.pathsep.join(sys.path))}.json"


def _digest(text: str) -> str:
    import zlib

    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def _path_state() -> dict[str, Any]:
    return {
        "core": fusionbench_core.__version__,
        "python": sys.version,
        "entries": [[entry, _modified(entry or ".")] for entry in sys.path],
    }


def _metadata_state(plugins: list[Plugin]) -> list[list[Any]]:
    return [[path, _modified(path)] for plugin in plugins for path in plugin.metadata]


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
