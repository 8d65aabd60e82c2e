"""Wall time, processor time and anonymous memory, of a call or of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fusionbench_core.engine.sizes import available_memory

_PERIOD = 0.01


@dataclass(frozen=True)
class Cost:
    """What something took.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of all processors, system time included.
        memory: Peak of anonymous memory in bytes; mapped files, which the system can drop, do not count.
            None where the system does not tell.
    """

    wall: float
    cpu: float
    memory: int | None


class Failed(Exception):
    """A measured process failed; the message is the end of what it said."""


def of_call(work: Callable[[], object]) -> Cost:
    """What a call takes; its memory counts from where the process stood before."""
    with _Peak(os.getpid()) as peak:
        before = peak.now()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall, cpu, None if before is None else max(0, peak.highest - before))


def of_process(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Cost:
    """What a whole process takes, start-up included.

    Raises:
        Failed: if it does not end well, or takes most of the memory that was free: it is ended then,
            before the system ends something else.
    """
    most = (available_memory() or 2**63) * 9 // 10
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        with _Peak(process.pid, most) as peak:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if peak.highest > most:
            raise Failed(f"it took more than {most / 1e9:.1f} GB of memory")
        if process.returncode:
            said.seek(0)
            raise Failed(said.read().decode(errors="replace").strip()[-2000:] or f"exit {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak.highest or None)


def middle(costs: Sequence[Cost]) -> Cost:
    """The medians."""
    memory = [cost.memory for cost in costs if cost.memory is not None]
    return Cost(
        median(cost.wall for cost in costs),
        median(cost.cpu for cost in costs),
        round(median(memory)) if memory else None,
    )


def ratio(costs: Sequence[Cost], others: Sequence[Cost]) -> float:
    """Median of the ratios of wall time, round by round: what slows both down cancels."""
    return median(mine.wall / other.wall for mine, other in zip(costs, others))


class _Peak:
    """Looks at the anonymous memory of a process many times a second, and ends it at `most` bytes."""

    def __init__(self, pid: int, most: int | None = None) -> None:
        self.highest = 0
        self._pid, self._most = pid, most
        self._status = f"/proc/{pid}/status"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> int | None:
        """Bytes right now."""
        try:
            with open(self._status) as file:
                for line in file:
                    if line.startswith("RssAnon:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            return None
        return None

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.highest = max(self.highest, self.now() or 0)
            if self._most is not None and self.highest > self._most:
                os.kill(self._pid, signal.SIGKILL)
                return
            self._stop.wait(_PERIOD)
