"""Where `fb` keeps the user's settings and its caches. Plain strings: pathlib costs start-up time."""

from __future__ import annotations

import os


def config_home() -> str:
    """`$FB_CONFIG_HOME`, else `$XDG_CONFIG_HOME/fusionbench`, else `~/.config/fusionbench`."""
    return _home("FB_CONFIG_HOME", "XDG_CONFIG_HOME", ".config")


def cache_home() -> str:
    """`$FB_CACHE_HOME`, else `$XDG_CACHE_HOME/fusionbench`, else `~/.cache/fusionbench`."""
    return _home("FB_CACHE_HOME", "XDG_CACHE_HOME", ".cache")


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
