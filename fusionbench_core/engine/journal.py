"""The journal of a merge: which tensors are written, and their checksums, so that it can go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from fusionbench_core.files import output_error

NAME = "journal.jsonl"


class Journal:
    """Append-only lines: first the plan's key, then one line a finished tensor.

    What an earlier run noted is never rewritten, so that there is no moment at which it could be lost.

    Args:
        path: The file.
        key: `Plan.key`; a journal of another plan is not continued.
        resume: Whether to go on with a journal that is there.

    Raises:
        OutputError: if it cannot be written.
    """

    def __init__(self, path: Path, key: str, *, resume: bool) -> None:
        self._path = path
        self.done: Mapping[str, int]
        self.done, whole = _read(path, key) if resume else ({}, 0)
        try:
            self._file = open(path, "r+b" if whole else "wb")  # noqa: SIM115 closed by close()
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise output_error(error, path) from error
        if not whole:
            self._append({"plan": key})

    def record(self, name: str, checksum: int) -> None:
        """Note that a tensor is written. Raises OutputError."""
        self._append({"tensor": name, "checksum": checksum})

    def close(self) -> None:
        with contextlib.suppress(OSError):  # whoever could not write a line has heard of it
            self._file.close()

    def _append(self, line: dict[str, str | int]) -> None:
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise output_error(error, self._path) from error


def _read(path: Path, key: str) -> tuple[dict[str, int], int]:
    """Tensors noted by an earlier run of the same plan, and the length of what is whole of the file."""
    done: dict[str, int] = {}
    whole = 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return done, whole
    for number, text in enumerate(lines):
        try:
            line = json.loads(text)
            if not text.endswith(b"\n") or (number == 0 and line.get("plan") != key):
                break
            if number:
                done[line["tensor"]] = int(line["checksum"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            break
        whole += len(text)
    return done, whole
