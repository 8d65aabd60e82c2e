"""`fb` in a process of its own that has imported the slow third-party packages already.

A process that holds them waits for requests and forks for each: the new process has its own directory,
environment, streams and exit status, and nothing of ours has run in it. It starts in milliseconds instead of
seconds, which many tests of the command line would else spend on importing torch.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class WarmPython:
    """A process to fork from.

    Args:
        modules: What it imports first.
    """

    def __init__(self, *modules: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fb(
        self, *words: str, cwd: Path, env: Mapping[str, str], timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `fb WORDS`; stopped after `timeout` seconds."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as scratch:
            streams = [Path(scratch, name) for name in ("stdout", "stderr")]
            request = {
                "words": words,
                "cwd": str(cwd),
                "env": dict(env),
                "streams": [str(stream) for stream in streams],
                "timeout": int(timeout),
            }
            print(json.dumps(request), file=self._server.stdin, flush=True)
            status = int(self._server.stdout.readline())
            printed = [stream.read_text(encoding="utf-8") for stream in streams]
        return subprocess.CompletedProcess(["fb", *words], status, *printed)

    def close(self) -> None:
        """End it."""
        self._server.communicate()


def _serve(modules: Sequence[str]) -> dict | None:
    """Answer requests until there are none; in a forked process, the request that it is for."""
    answers = os.fdopen(os.dup(1), "w")
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers, flush=True)
    return None


def _become(request: Mapping) -> None:
    """Take over the directory, the environment and the streams that a new process would be given."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["fb", *request["words"]]
    for number, stream in zip((1, 2), request["streams"]):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(request["timeout"])


if __name__ == "__main__":
    if asked := _serve(sys.argv[1:]):
        _become(asked)
        from fusionbench_core.__main__ import program

        program()
