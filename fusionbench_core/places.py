"""Where the user's settings and caches are. Plain strings inside: pathlib costs start-up time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def config_home() -> str:
    """`$FB_CONFIG_HOME`, else `$XDG_CONFIG_HOME/fusionbench`, else `~/.config/fusionbench`."""
    return _home("FB_CONFIG_HOME", "XDG_CONFIG_HOME", ".config")


def cache_home() -> str:
    """`$FB_CACHE_HOME`, else `$XDG_CACHE_HOME/fusionbench`, else `~/.cache/fusionbench`."""
    return _home("FB_CACHE_HOME", "XDG_CACHE_HOME", ".cache")


def cache_dir(*parts: str) -> Path:
    """A directory of the user's cache, made if need be.

    Args:
        parts: Sub-directories, e.g. `"statistics"`.

    Raises:
        OSError: if it cannot be made; callers go on without a cache.
    """
    from pathlib import Path

    path = Path(cache_home(), *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(file: str, text: str) -> None:
    """Replace a small file at once, so that no reader sees half of it. Raises OSError."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    temporary = f"{file}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(temporary, file)


def _home(own: str, shared: str, default: str) -> str:
    if chosen := os.environ.get(own):
        return os.path.expanduser(chosen)
    base = os.environ.get(shared) or os.path.join(os.path.expanduser("~"), default)
    return os.path.join(base, "fusionbench")
