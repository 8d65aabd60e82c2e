"""Call functions in a fresh Python process, with a hash seed of one's choice.

    >>> run(digest, record, hashseed=1)  # doctest: +SKIP

One process for each hash seed is started on first use, and serves all calls of this process: a start
costs seconds, a call milliseconds. It has this one's import path and local plugins, and no network.

Calls and answers are pickled: this process runs the same plugins' code, so it trusts the other one no more
than itself.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from fusionbench_core.plugins import collection
from fusionbench_core.plugins.loading import describe
from fusionbench_core.testing.check import Violation
from fusionbench_core.testing.sandbox import no_network


def run(function: Callable[..., Any], *arguments: Any, hashseed: int = 1) -> Any:
    """What `function(*arguments)` gives in a fresh process.

    Args:
        function: A function of a module, not a lambda and not a local one.
        arguments: What can be pickled; e.g. a record, of which `subject_of` makes a subject again.
        hashseed: Its `PYTHONHASHSEED`. Few different ones mean few processes.

    Raises:
        Violation: if the process dies. What the function raises is raised here, as a RuntimeError if it
            cannot be pickled.
    """
    files = tuple(map(str, collection.local_files()))
    kept, answer = _process(hashseed).ask((list(sys.path), files, pickle.dumps((function, arguments))))
    if isinstance(answer, BaseException):
        raise answer
    if not kept:
        raise RuntimeError(answer)
    return answer


class _Process:
    """The process of one hash seed; started again where a call ended it."""

    def __init__(self, hashseed: int) -> None:
        self._hashseed = str(hashseed)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        atexit.register(self.close)

    def ask(self, request: Any) -> tuple[bool, Any]:
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301 - from our own child
        except (EOFError, BrokenPipeError):
            self._process = None
            _end(process)
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()[-8:]
            raise Violation(
                "\n".join([f"a fresh process died of it (exit status {process.returncode})", *words])
            ) from None

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        self._errors.close()

    def _started(self) -> subprocess.Popen[bytes]:
        self._errors.seek(0)
        self._errors.truncate()
        return subprocess.Popen(
            [sys.executable, "-c", "from fusionbench_core.testing.fresh import serve; serve()"],
            env={
                **os.environ,
                "PYTHONHASHSEED": self._hashseed,
                "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
                "PYTHONSAFEPATH": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    # It ends when its input does. A request that it never read is lost with it.
    with suppress(BrokenPipeError), process:
        pass


@cache
def _process(hashseed: int) -> _Process:
    return _Process(hashseed)


def serve() -> None:
    """Answer the calls of the process that started this one, until it ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Answers have a stream of their own: what plugins print is none.
    os.dup2(2, 1)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    with no_network():
        while True:
            try:
                path, files, call = pickle.load(requests)  # noqa: S301 - from our own parent
            except EOFError:
                return
            answers.write(_answer(path, files, call))
            answers.flush()


def _answer(path: list[str], files: tuple[str, ...], call: bytes) -> bytes:
    """`(True, value)`, `(True, exception)` or `(False, description of an exception)`, pickled."""
    from pathlib import Path

    sys.path[:] = path
    if files != tuple(map(str, collection.local_files())):
        collection.configure(files=[Path(file) for file in files])
    try:
        # Local plugins are modules of their own making: they are there once the plugins are loaded.
        collection.installed_plugins()
        function, arguments = pickle.loads(call)  # noqa: S301 - from our own parent
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> bytes:
    try:
        answer = pickle.dumps((True, error))
        pickle.loads(answer)  # noqa: S301 - our own bytes
        return answer
    except Exception:
        return pickle.dumps((False, describe(error)))
