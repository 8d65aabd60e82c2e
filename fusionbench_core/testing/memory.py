"""Anonymous memory of this process: what it allocated, without the files it mapped."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")


def anonymous_memory() -> int | None:
    """Bytes of anonymous memory in use; None where the system does not say."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except OSError:
        return None
    return None


def peak_growth(work: Callable[[], object], *, interval: float = 0.002) -> int:
    """Bytes of anonymous memory that `work()` takes at most, on top of what is in use before.

    Looked at every `interval` seconds by a thread. Needs a system on which `anonymous_memory` works.
    """
    gc.collect()
    before = peak = anonymous_memory() or 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(interval):
            peak = max(peak, anonymous_memory() or 0)

    watcher = threading.Thread(target=watch, name="memory")
    watcher.start()
    try:
        work()
        peak = max(peak, anonymous_memory() or 0)
    finally:
        done.set()
        watcher.join()
    return peak - before
