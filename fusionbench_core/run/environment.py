"""What a run ran on, for the report."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from typing import Any

import importlib_metadata

_PACKAGES = (
    "fusionbench-core",
    "torch",
    "numpy",
    "transformers",
    "peft",
    "open_clip_torch",
    "datasets",
    "lightning",
    "pluggy",
    "pydantic",
    "hydra-core",
)


def environment(plugins: Iterable[Any] = ()) -> dict[str, Any]:
    """Python, platform, and the versions of the packages that matter."""
    packages = {}
    for name in (*_PACKAGES, *sorted(plugin.distribution for plugin in plugins)):
        try:
            packages[name] = importlib_metadata.version(name)
        except importlib_metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": packages,
    }
