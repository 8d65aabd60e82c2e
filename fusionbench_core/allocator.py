"""Whether the C library keeps freed memory, for speed, or gives it back, so that memory can be measured.

Merging allocates and frees the same few blocks all the time. By default glibc returns such blocks to the
system and has them mapped, and zeroed, again: half of the time of a merge. With another C library nothing
happens here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options of `mallopt`."""

_KEPT = 64 * 2**20
"""Bytes of freed memory that each arena keeps."""

_MAPPED = 32 * 2**20
"""Bytes from which blocks are mapped and given back one by one; the most that glibc allows."""


_LARGE = 2**20
"""Bytes from which blocks are given back at once where blocks are matrices."""

_thresholds = (0, 0)
"""What the C library was told last: bytes from which blocks are mapped, bytes kept."""


@functools.cache
def keep_freed_memory() -> None:
    """Keep a bounded amount of freed memory to use it again, from now on."""
    _set(_MAPPED, _KEPT)


@contextlib.contextmanager
def freed_memory_given_back(threshold: int = 16 * 2**10) -> Iterator[None]:
    """Within this, memory in use is memory allocated, for blocks of `threshold` bytes and more."""
    with _thresholds_of(threshold, 0):
        give_back_freed_memory()
        yield


@contextlib.contextmanager
def freed_matrices_given_back() -> Iterator[None]:
    """Within this, large blocks are given back when they are freed, small ones are kept.

    Mapping a matrix anew costs nothing beside factorising it; keeping all sizes that a factorisation asks for
    costs more memory than using them.
    """
    with _thresholds_of(_LARGE, _KEPT):
        yield


@contextlib.contextmanager
def _thresholds_of(mapped: int, kept: int) -> Iterator[None]:
    """Other thresholds for a while, never above those in force."""
    keep_freed_memory()
    before = _thresholds
    _set(min(mapped, before[0]), min(kept, before[1]))
    try:
        yield
    finally:
        _set(*before)


def give_back_freed_memory() -> None:
    """Give back what is kept now."""
    if hasattr(_library(), "malloc_trim"):
        _library().malloc_trim(0)


def _set(mapped: int, kept: int) -> None:
    global _thresholds
    _thresholds = mapped, kept
    if hasattr(_library(), "mallopt"):
        _library().mallopt(_MMAP_THRESHOLD, mapped)
        _library().mallopt(_TRIM_THRESHOLD, kept)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
