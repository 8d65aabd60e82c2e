"""The program `fb`, as a process of its own; `python -m fusionbench_core` is the same."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn


def program() -> NoReturn:
    """Run the command line, and leave the process with its exit status."""
    # Starting makes about a million objects, nearly all of which stay: looking through them for garbage
    # as often as a small program does costs an eighth of the time that torch takes to import.
    gc.set_threshold(100_000, 50, 100)
    from fusionbench_core.cli import main

    try:
        main(prog_name="fb")
    except SystemExit as request:
        _leave(request.code if isinstance(request.code, int) else 0)
    _leave(0)


def _leave(status: int) -> NoReturn:
    """End the process without taking the interpreter apart.

    That takes over half a second once torch is loaded, and frees only what the system frees anyway. What
    asked to be called at the end is called; threads that the interpreter would wait for are waited for.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        # A closed pipe or stream: the interpreter has its own answer and exit status for it.
        sys.exit(status)
    os._exit(status)


if __name__ == "__main__":
    program()
