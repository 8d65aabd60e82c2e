"""`FB_TRACE=1` or `fb --trace-hooks`: one line on stderr a hook call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_forced = False


def enable() -> None:
    """Trace for the rest of the process."""
    global _forced
    _forced = True


def enabled() -> bool:
    return _forced or os.environ.get("FB_TRACE", "") not in ("", "0")


@contextmanager
def call(namespace: str, hook: str) -> Iterator[Callable[[str], None]]:
    """Trace one call; the caller reports the answer through the function it is given."""
    if not enabled():
        yield lambda answer: None
        return
    said: list[str] = []
    started = time.perf_counter()
    try:
        yield said.append
    except BaseException as error:
        said.append(f"raised {type(error).__name__}: {error}")
        raise
    finally:
        spent = (time.perf_counter() - started) * 1000
        answer = f" -> {said[-1]}" if said else ""
        # Plugins' own output is captured while they load, so go past `sys.stderr`.
        stream = sys.__stderr__ or sys.stderr
        stream.write(f"hook  {namespace}:{hook}  {spent:.1f} ms{answer}\n")
