"""Where results that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """A directory of the user's cache, made if need be: `$FB_CACHE_HOME`, else
    `$XDG_CACHE_HOME/fusionbench`, else `~/.cache/fusionbench`.

    Args:
        parts: Sub-directories, e.g. `"statistics"`.

    Raises:
        OSError: if it cannot be made; callers go on without a cache.
    """
    home = os.environ.get("FB_CACHE_HOME")
    if home is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = Path(base) / "fusionbench"
    path = Path(home, *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path
