"""Anonymous memory of this process: what it allocated, without the files it mapped."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_STATUS = Path("/proc/self/status")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of options of `mallopt` in the C library of GNU."""

_DEFAULT_THRESHOLD = 128 * 2**10
"""Bytes, of both options, when a process starts."""


def anonymous_memory() -> int | None:
    """Bytes of anonymous memory in use; None where the system does not say."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except OSError:
        return None
    return None


@contextlib.contextmanager
def nothing_retained(threshold: int = 16 * 2**10) -> Iterator[None]:
    """Within this, what is freed goes back to the system at once, so memory in use is memory allocated.

    Otherwise the allocator keeps freed memory to use it again, and how much of it depends on timing.
    Holds for blocks of `threshold` bytes and more. Does nothing where the C library is not that of GNU.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, threshold)
    library.mallopt(_TRIM_THRESHOLD, 0)
    library.malloc_trim(0)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)


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
