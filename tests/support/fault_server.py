"""Runs `fb` again and again in forked children, each with a fault at one of its operations on the disk.

One JSON line in is one run, `{"words": […], "cwd": …, "fault": "kill", "at": 5}`; one line out is how it
ended: `{"status": -9, "operations": ["pwrite 7", …], "output": "…"}`. Imports are paid once. Faults:

- `kill`: SIGKILL instead of the operation; `torn`: SIGKILL when half of it is done;
- `interrupt`: Ctrl-C, and the operation is done;
- `full`: this operation and all later ones that take space fail, as on a full disk.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path

OPERATIONS = ("pwrite", "posix_fallocate", "ftruncate", "fsync", "replace", "unlink", "mkdir")
TAKE_SPACE = ("pwrite", "posix_fallocate", "mkdir", "open", "write")


class Faults:
    """Counts operations on the disk, and spoils the one that is due."""

    def __init__(self, fault: str | None, at: int, root: str) -> None:
        self.done: list[str] = []
        self._fault, self._at, self._root = fault, at, root
        self._lock = threading.Lock()

    def install(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        plain = builtins.open

        def opened(file, mode="r", *rest, **options):
            inside = isinstance(file, (str, os.PathLike)) and os.path.abspath(file).startswith(self._root)
            if not inside or not set(mode) & set("wax+"):
                return plain(file, mode, *rest, **options)
            file = self._wrapped("open", plain)(file, mode, *rest, **options)
            return Stream(file, self) if str(file.name).endswith("journal.jsonl") else file

        builtins.open = opened

    def _wrapped(self, name, function):
        def call(*arguments, **options):
            with self._lock:
                self.done.append(f"{name} {arguments[0]}")
                due, later = len(self.done) == self._at, len(self.done) >= self._at
            if due and self._fault == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if due and self._fault == "torn" and name == "pwrite":
                descriptor, data, offset = arguments
                function(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            if due and self._fault == "torn" and name == "write":
                function(arguments[0][: len(arguments[0]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if due and self._fault == "torn":
                with contextlib.suppress(OSError):
                    function(*arguments, **options)
            if due and self._fault in ("kill", "torn"):
                os.kill(os.getpid(), signal.SIGKILL)
            if later and self._fault == "full" and name in TAKE_SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call


class Stream:
    """A file whose lines are operations on the disk too."""

    def __init__(self, file, faults: Faults) -> None:
        self._file = file
        self._write = faults._wrapped("write", self._through)

    def write(self, line: bytes) -> None:
        self._write(line)

    def _through(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def __getattr__(self, name):
        return getattr(self._file, name)


def run(job: dict) -> None:
    """Be `fb WORDS`; does not return."""
    os.chdir(job["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(job["output"], 1)
    os.dup2(job["output"], 2)
    if user := job.get("user"):
        os.setuid(user)
    if limit := job.get("largest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    faults = Faults(job.get("fault"), job.get("at", 0), job["cwd"])
    faults.install()
    from fusionbench_core.cli import main

    try:
        main(["--no-plugins", "--plugin", str(Path(__file__).with_name("toy.py")), *job["words"]])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(job["report"], json.dumps(faults.done).encode())
    os._exit(status)


def main() -> None:
    import toy
    from click.testing import CliRunner

    from fusionbench_core.cli import main as fb

    # One run here pays all imports; its threads have ended when the first child is forked.
    scratch = Path(sys.argv[1])
    models = toy.make_models(scratch / "models", 1)
    config = {"method": {"name": "mean"}, "modelpool": {"source": "mlp", "models": {"a": models["a"]}}}
    (scratch / "warm.yaml").write_text(json.dumps(config))
    words = ["run", "-c", str(scratch / "warm.yaml"), "-o", str(scratch / "out")]
    warm = CliRunner().invoke(fb, ["--no-plugins", "--plugin", toy.__file__, *words])
    assert warm.exit_code == 0, warm.output
    for line in sys.stdin:
        job = json.loads(line)
        (heard, said), (seen, shown) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            run({**job, "report": said, "output": shown})
        os.close(said)
        os.close(shown)
        with os.fdopen(seen) as screen, os.fdopen(heard) as report:
            output, operations = screen.read(), json.loads(report.read() or "[]")
        _, status = os.waitpid(child, 0)
        answer = {"status": os.waitstatus_to_exitcode(status), "operations": operations, "output": output}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
