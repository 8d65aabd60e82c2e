"""C functions in place of several passes over memory: compiled where that pays, with the same results.

A merge of large models waits for memory: each torch operation reads its operands from the cache, or from
memory, and writes its result back. A few lines of C do the work of many operations in one pass.

They are an optimisation and nothing else. Whoever calls them has the same computation in torch, which is used
without a compiler, for small amounts of work, while the compiler still runs, and where a comparison on this
very machine does not give equal bits. `FB_NATIVE=0` switches them off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fusionbench_core.places import cache_dir

INCLUDE = Path(__file__).parent / "include"
"""Headers that C files of plugins may include."""

PAYS_FROM = 1 << 28
"""Entries after which compiling, which takes about a second, is worth it."""

FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
"""No flag lets the compiler change what is computed: each function rounds as it is written."""


_expected = 0


@contextmanager
def expected(entries: int) -> Iterator[None]:
    """Within this, so many entries will be computed; if that pays, compilers start at the first of them."""
    global _expected
    before, _expected = _expected, entries
    try:
        yield
    finally:
        _expected = before


class NativeKernels:
    """The functions of one C file.

    Args:
        source: The C file, which lies in the package. It may include `stored.h`.
        functions: Name -> types of its arguments, of ctypes; all give an `int64_t`.
        agrees: Whether the functions give the bits of the torch code they stand for; asked once a process.
    """

    def __init__(
        self,
        source: Path,
        functions: Mapping[str, tuple[type, ...]],
        agrees: Callable[[ctypes.CDLL], bool],
    ) -> None:
        self._source, self._functions, self._agrees = source, functions, agrees
        self._library: ctypes.CDLL | None = None
        self._entries = 0
        self._looked = self._settled = False
        self._lock, self._compiling = threading.Lock(), threading.Lock()

    def library(self, entries: int) -> ctypes.CDLL | None:
        """The library if there is one by now, else None: compute it in torch.

        Args:
            entries: How many entries it is wanted for. Enough of them, or enough that are expected, start the
                compiler in the background.
        """
        if self._settled:
            return self._library
        with self._lock:
            if not self._looked:
                self._looked = True
                self._settled = os.environ.get("FB_NATIVE") == "0" or _compiler() is None
                if not self._settled:
                    self._settled = self._load()
            self._entries += entries
            if not self._settled and entries and max(self._entries, _expected) >= PAYS_FROM:
                self._entries = -(1 << 62)
                threading.Thread(target=self._compile, name="compiler", daemon=True).start()
        return self._library

    def compiled(self) -> ctypes.CDLL | None:
        """The library, compiled now if need be; None where that cannot be."""
        if self.library(0) is None:
            self._compile()
        return self._library

    def _compile(self) -> None:
        with self._compiling:
            if self._settled:
                return
            with suppress(OSError, subprocess.SubprocessError):
                _compile(self._source, self._file())
                self._load()
            self._settled = True

    def _load(self) -> bool:
        """Whether the library was there; it is used if it gives the same results."""
        try:
            file = self._file()
            if not _is_ours(file):
                return False
            library = ctypes.CDLL(str(file))
            for name, types in self._functions.items():
                function = getattr(library, name)
                function.argtypes, function.restype = types, ctypes.c_int64
        except (OSError, AttributeError):
            return False
        if self._agrees(library):
            self._library = library
        return True

    def _file(self) -> Path:
        texts = [file.read_bytes() for file in (self._source, *sorted(INCLUDE.glob("*.h")))]
        key = hashlib.sha256(b"\0".join([*texts, *(word.encode() for word in (*_command(), _processor()))]))
        return cache_dir("native") / f"{self._source.stem}-{key.hexdigest()[:24]}.so"


def _compile(source: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        subprocess.run(
            [*_command(), f"-I{INCLUDE}", "-o", str(temporary), str(source)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
        temporary.chmod(0o700)
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _command() -> list[str]:
    # Other processors than x86's have all that is needed in their baseline.
    native = (
        ["-march=native", "-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    )
    return [_compiler() or "cc", *FLAGS, *native]


def _compiler() -> str | None:
    if os.name != "posix":
        return None
    return shutil.which(os.environ.get("CC") or "cc")


def _processor() -> str:
    """What decides which instructions there are: a cache can be shared by machines."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()}"


def _is_ours(file: Path) -> bool:
    """Whether it is there, and nobody else can have written it."""
    try:
        found = file.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
