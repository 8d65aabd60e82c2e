"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re
from pathlib import Path

from fusionbench_core.errors import ConfigError

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_MEMINFO, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]i?)?b?\s*\Z", re.IGNORECASE)


def parse_size(text: str | int, where: str) -> int:
    """Bytes of `2GB`, `500MiB`, `4000000`.

    Raises:
        ConfigError: if it is not a positive size.
    """
    found = _SIZE.match(str(text))
    size = int(float(found.group(1)) * _UNITS[(found.group(2) or "").lower()]) if found else 0
    if size <= 0:
        raise ConfigError(f"{text!r} is not a size", config=where, fix="write e.g. 500MB, 2GB or 4GiB")
    return size


def available_memory() -> int | None:
    """Bytes of memory that the system, or the container, could give now; None where neither says."""
    known = [free for free in (_free_of_system(), _free_of_container()) if free is not None]
    return min(known, default=None)


def _free_of_system() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def _free_of_container() -> int | None:
    """What a control group leaves, cached files not counted, which the kernel drops when it needs to."""
    try:
        limit, used = (int((_CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
