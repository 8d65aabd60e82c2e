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
    """Bytes of memory the system could give now; None where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None
