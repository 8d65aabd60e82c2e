"""All plugins of this process: found, chosen and loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fusionbench_core.plugins import declarations_cache, settings, trace
from fusionbench_core.plugins.discovery import find
from fusionbench_core.plugins.loading import load
from fusionbench_core.plugins.plugin import Plugin

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class Plugins:
    """Every plugin with its status, sorted by namespace, local files last."""

    plugins: tuple[Plugin, ...]

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self.plugins)

    def __len__(self) -> int:
        return len(self.plugins)

    @property
    def usable(self) -> tuple[Plugin, ...]:
        """Those whose records and observers take part."""
        return tuple(plugin for plugin in self.plugins if plugin.status == "ok")

    def get(self, namespace: str) -> Plugin | None:
        """The plugin of a namespace, whatever its status."""
        return next((plugin for plugin in self.plugins if plugin.namespace == namespace), None)


def load_plugins(*, no_plugins: bool = False, files: Sequence[Path] = (), cached: bool = True) -> Plugins:
    """Find, choose and load plugins. A broken one is part of the answer, never an exception.

    Args:
        no_plugins: Load nothing that is installed.
        files: Local plugin files, loaded even with `no_plugins`.
        cached: Whether a slow plugin may be taken as an earlier process loaded it.

    Raises:
        ConfigError: `FB_PLUGINS` or a file name is wrong.
        PluginBroken: A local file, which was asked for by name, cannot be used.
    """
    installed = find()
    chosen = settings.selection(installed, no_plugins=no_plugins).apply(installed)
    loaded = [_load(plugin, cached) if plugin.status == "found" else plugin for plugin in chosen]
    if files:
        from fusionbench_core.plugins.local import load_file

        for file in files:
            loaded.append(load_file(file, loaded))
    return Plugins(tuple(loaded))


def _load(plugin: Plugin, cached: bool) -> Plugin:
    if cached and (known := declarations_cache.remembered(plugin)) is not None:
        return known
    loaded = load(plugin)
    declarations_cache.remember(loaded)
    return loaded


_options: dict = {"no_plugins": False, "files": ()}


def configure(*, no_plugins: bool = False, files: Sequence[Path] = (), trace_hooks: bool = False) -> None:
    """Set what :func:`installed_plugins` loads; the command line calls it once, before anything else."""
    _options.update(no_plugins=no_plugins, files=tuple(files))
    _loaded.cache_clear()
    if trace_hooks:
        trace.enable()


def local_files() -> tuple[Path, ...]:
    """The plugin files that :func:`installed_plugins` loads beside what is installed."""
    return tuple(_options["files"])


def installed_plugins(*, cached: bool = True) -> Plugins:
    """The plugins of this process, loaded on the first call. Raises what :func:`load_plugins` raises.

    Args:
        cached: Without, all are imported now, whatever earlier processes know; for listings that judge.
    """
    return _loaded(cached)


@lru_cache(maxsize=2)
def _loaded(cached: bool) -> Plugins:
    return load_plugins(**_options, cached=cached)
