"""From a reference to a local directory: a path, a file inside a plugin, or a snapshot of the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionbench_core import CorruptFile, FusionError, NotFound, Offline, resolve_path

SMALL = ("*.json", "*.txt", "NOTICE*", "LICENSE*", "LICENCE*")
WEIGHTS = (("*.safetensors",), ("*.bin",))
"""Patterns of weights, tried in this order: torch files only where there are no safetensors."""


def locate(reference: str, revision: str | None = None) -> Path:
    """The local file or directory of a model; a hub id is downloaded unless it is in the cache.

    Args:
        reference: A path, a `pkg://` reference, or a hub id, which may end in `@REVISION`.
        revision: Branch, tag or commit of the hub id; wins over `@REVISION`.

    Raises:
        NotFound: if there is no such path or hub repository, or it holds no weights.
        Offline: if the hub cannot be reached and the cache does not hold what is needed.
    """
    local = resolve_path(reference)
    if local is not None:
        return local
    name, revision = split_revision(reference, revision)
    for weights in WEIGHTS:
        directory = _snapshot(name, revision, (*SMALL, *weights))
        if present(directory, weights):
            return directory
    raise _unavailable(name, revision, f"its snapshot in the cache holds no weights: {directory}")


def split_revision(reference: str, revision: str | None) -> tuple[str, str | None]:
    """Hub id and revision of a reference; a revision given apart wins."""
    name, _, written = reference.partition("@")
    return name, revision or written or None


def commit_of(directory: Path) -> str | None:
    """The commit that a snapshot in the hub's cache is of; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" else None


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

            repository, revision = split_revision(reference, None)
            cached = try_to_load_from_cache(repository, name, revision=revision)
            return read_json(Path(cached)) if isinstance(cached, str) else {}
        return read_json(local / name)
    except (FusionError, OSError, ValueError):
        return {}


def present(directory: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The files of those names or patterns that a directory holds."""
    found = [file for name in names for file in sorted(directory.glob(name)) if file.is_file()]
    return tuple(dict.fromkeys(found))


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # Sub-folders hold copies in other formats (onnx, openvino), which can be large.
        directory = snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotFound(
            f"the hub has no model {name!r} that you may read",
            revision=revision,
            why=first_line(error),
            fix="check the name and the revision; for gated or private models run `hf auth login` first",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise _unavailable(name, revision, first_line(error)) from error
    return Path(directory)


def _unavailable(name: str, revision: str | None, why: str) -> Offline:
    from huggingface_hub import constants

    wanted = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return Offline(
        f"{name!r} is not in the local cache, and the hub cannot be reached",
        looked_in=f"{Path(name).absolute()}\n{constants.HF_HUB_CACHE}",
        why=why,
        fix=f"where there is a network: {wanted}\nor give the path of a local copy",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
