"""The journal of a merge: which tensors are written, and their checksums, so that it can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

NAME = "journal.jsonl"


class Journal:
    """Append-only lines: first the plan's key, then one line a finished tensor.

    Args:
        path: The file.
        key: `Plan.key`; a journal of another plan is not continued.
    """

    def __init__(self, path: Path, key: str, *, resume: bool) -> None:
        self.done: Mapping[str, int] = _read(path, key) if resume else {}
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 closed by close()
        self._append({"plan": key})
        for name, checksum in self.done.items():
            self._append({"tensor": name, "checksum": checksum})

    def record(self, name: str, checksum: int) -> None:
        """Note that a tensor is written."""
        self._append({"tensor": name, "checksum": checksum})

    def close(self) -> None:
        self._file.close()

    def _append(self, line: dict[str, str | int]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _read(path: Path, key: str) -> dict[str, int]:
    """Tensors noted by an earlier run of the same plan; a line cut short ends the reading."""
    done: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return done
    for number, text in enumerate(lines):
        try:
            line = json.loads(text)
            if number == 0 and line.get("plan") != key:
                return done
            if number:
                done[line["tensor"]] = int(line["checksum"])
        except (ValueError, KeyError, TypeError, AttributeError):
            break
    return done
