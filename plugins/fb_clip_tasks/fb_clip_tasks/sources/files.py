"""Files of models that are here already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionbench_core import CorruptFile, FusionError, NotFound, resolve_path, split_revision


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        NotFound: if there is no such file.
        CorruptFile: if it holds no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"there is no {file.name} in {file.parent}",
            fix="point to a directory saved with `save_pretrained`, config and weights together",
        ) from None
    except ValueError as error:
        raise CorruptFile(f"{file.name} is not valid JSON", file=file, why=str(error)) from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{file.name} is not a JSON object", file=file)
    return content


def peek_json(reference: str, name: str) -> dict[str, Any]:
    """A small JSON file of a model that is here already; empty if it is not, or is malformed."""
    try:
        local = resolve_path(reference)
        if local is None:
            from huggingface_hub import try_to_load_from_cache

            repository, revision = split_revision(reference)
            cached = try_to_load_from_cache(repository, name, revision=revision)
            return read_json(Path(cached)) if isinstance(cached, str) else {}
        return read_json(local / name)
    except (FusionError, OSError, ValueError):
        return {}


def present(directory: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The files of those names or patterns that a directory holds."""
    found = [file for name in names for file in sorted(directory.glob(name)) if file.is_file()]
    return tuple(dict.fromkeys(found))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
