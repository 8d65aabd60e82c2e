"""Run many small jobs on a few threads, results in order, with a bound on what is in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from fusionbench_core.allocator import keep_freed_memory

BATCH, MOST = 1 << 21, 8
"""How much work a thread is handed at a time, and how many jobs at most."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class MemoryGate:
    """Lets jobs in while the sum of their sizes fits; a job larger than everything runs alone."""

    def __init__(self, budget: int | None) -> None:
        self._budget = budget
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes fit, and hold them."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._budget is None or not self._used or self._used + size <= self._budget
            )
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


class Workers:
    """Threads that compute with one intra-op thread each; one worker is the caller's own thread.

    One intra-op thread makes every result independent of the number of processors; parallelism comes
    from the pieces. The caller's own settings are restored.
    """

    def __init__(self, threads: int) -> None:
        keep_freed_memory()
        self._threads = threads
        self._before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(threads, "fusion", initializer=_single_threaded)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(
        self,
        work: Callable[[Job], Result],
        jobs: Iterable[Job],
        size: Callable[[Job], int] = lambda job: BATCH,
    ) -> Iterator[tuple[Job, Result]]:
        """`(job, work(job))` in the order of `jobs`.

        A thread is handed small jobs several at a time: each time two threads have to agree on whose turn it
        is. At most four such batches a thread are waiting.

        Args:
            work: What to do.
            jobs: With what.
            size: About how much work a job is; batches end at `BATCH`.
        """
        if self._threads == 1:
            yield from self._inline(work, jobs)
            return
        for batch, results in self._pooled(lambda batch: [work(job) for job in batch], _batches(jobs, size)):
            yield from zip(batch, results)

    def _inline(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        torch.set_num_threads(1)
        for job in jobs:
            with torch.no_grad():
                result = work(job)
            yield job, result

    def _pooled(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        try:
            for job in jobs:
                waiting.append((job, self._pool.submit(work, job)))
                if len(waiting) >= 4 * self._threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _batches(jobs: Iterable[Job], size: Callable[[Job], int]) -> Iterator[list[Job]]:
    batch, total = [], 0
    for job in jobs:
        batch.append(job)
        total += size(job)
        if total >= BATCH or len(batch) >= MOST:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _single_threaded() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
