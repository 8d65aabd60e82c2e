"""From a reference to a local directory: a path, a file inside a plugin, or a snapshot of the hub."""

from __future__ import annotations

from pathlib import Path

from fusionbench_core import NotFound, Offline, resolve_path

SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "NOTICE*", "LICENSE*")
SAFETENSORS = ("*.safetensors",)
TORCH_FILES = ("*.bin",)


def locate(reference: str, revision: str | None = None, *, code: bool = False) -> Path:
    """The local directory of a model; downloads a hub id unless its snapshot is in the cache.

    Args:
        reference: A directory, a `pkg://` reference, or a hub id, which may end in `@REVISION`.
        revision: Branch, tag or commit of the hub id; wins over `@REVISION`.
        code: Whether to fetch the repository's Python files too.

    Raises:
        NotFound: if there is no such path or hub repository.
        Offline: if the hub cannot be reached and the cache does not hold the snapshot.
    """
    local = resolve_path(reference)
    if local is not None:
        return local if local.is_dir() else local.parent
    name, _, written = reference.partition("@")
    revision = revision or written or None
    small = (*SMALL_FILES, *(("*.py",) if code else ()))
    directory = _snapshot(name, revision, (*small, *SAFETENSORS))
    if not any(directory.glob("*.safetensors")):
        directory = _snapshot(name, revision, (*small, *TORCH_FILES))
    return directory


def commit_of(directory: Path) -> str | None:
    """The commit that a snapshot in the hub's cache is of; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" else None


def _snapshot(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        gated = isinstance(error, GatedRepoError)
        raise NotFound(
            f"the hub does not give out {name!r}",
            revision=revision,
            why="access to it must be granted first"
            if gated
            else "no such repository or revision, or private",
            fix="check the name; for gated or private ones log in with `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        wanted = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        raise Offline(
            f"{name!r} is not in the local cache, and the hub cannot be reached",
            looked_in=f"{Path(name).absolute()}\n{constants.HF_HUB_CACHE}",
            why=_first_line(error),
            fix=f"on a machine with a network: {wanted}\nthen copy the directory here and give its path",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
