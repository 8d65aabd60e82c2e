"""The process in which a plugin is checked: its events as they come, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionbench_core.testing.sandbox import environment


class CheckingProcess:
    """One process, its events, and how it ended."""

    def __init__(self, request: dict[str, Any], home: Path, limit: float) -> None:
        self._request, self._home, self.limit = request, home, limit
        self.hung, self.status = False, 0
        self._errors = home / "stderr.txt"

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come; the process has ended when they do."""
        for part in ("tmp", "work"):
            (self._home / part).mkdir(parents=True)
        request, events = self._home / "request.json", self._home / "events.jsonl"
        request.write_text(json.dumps(self._request), encoding="utf-8")
        events.touch()
        command = [sys.executable, "-m", "fusionbench_core.testing.child", str(request), str(events)]
        with self._errors.open("wb") as errors, events.open(encoding="utf-8") as stream:
            process = subprocess.Popen(
                command,
                cwd=self._home / "work",
                env=_without_cwd(environment(self._home)),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
            try:
                yield from self._follow(process, stream)
            finally:
                _stop(process)
        self.status = process.returncode

    def _follow(self, process: subprocess.Popen, stream: Any) -> Iterator[dict[str, Any]]:
        heard, pending = time.monotonic(), ""
        pause = threading.Event()
        while True:
            ended = process.poll() is not None
            pending += stream.read()
            *lines, pending = pending.split("\n")
            for line in lines:
                heard = time.monotonic()
                yield json.loads(line)
            if ended:
                return
            if time.monotonic() - heard > self.limit:
                self.hung = True
                return
            pause.wait(0.02)

    def last_words(self) -> str:
        """The last lines of its error stream."""
        try:
            text = self._errors.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-8:])


def _stop(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _without_cwd(env: dict[str, str]) -> dict[str, str]:
    # The import path of the one who asks, so that a plugin found there is found by the child as well.
    paths = [os.path.abspath(path) for path in sys.path if path]
    return {**env, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
