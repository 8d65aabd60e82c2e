"""Write files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from fusionbench_core.errors import OutputError


def write_atomically(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, flush it to the disk, then rename it.

    Raises:
        OutputError: if the disk is full, or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def is_leftover(path: Path) -> bool:
    """Whether `write_atomically` was killed before it could rename this file."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def output_error(error: OSError, path: Path) -> OutputError:
    """What to tell the user about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            "the disk is full", file=path, why=str(error), fix="free some space, then go on with `--resume`"
        )
    return OutputError(
        f"{path.name} cannot be written", file=path, why=str(error), fix="choose another output directory"
    )
