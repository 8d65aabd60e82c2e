"""How many processors there are for this process."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Number of processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
