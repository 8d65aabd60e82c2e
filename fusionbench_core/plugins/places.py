"""Where `fb` keeps the user's settings and its caches."""

from __future__ import annotations

import os
from pathlib import Path


def config_home() -> Path:
    """`$FB_CONFIG_HOME`, else `$XDG_CONFIG_HOME/fusionbench`, else `~/.config/fusionbench`."""
    return _home("FB_CONFIG_HOME", "XDG_CONFIG_HOME", ".config")


def cache_home() -> Path:
    """`$FB_CACHE_HOME`, else `$XDG_CACHE_HOME/fusionbench`, else `~/.cache/fusionbench`."""
    return _home("FB_CACHE_HOME", "XDG_CACHE_HOME", ".cache")


def _home(own: str, shared: str, default: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser()
    base = os.environ.get(shared)
    return (Path(base) if base else Path.home() / default) / "fusionbench"
