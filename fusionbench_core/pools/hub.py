"""Models of the Hugging Face hub, as directories of its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusionbench_core.errors import NotFound, Offline
from fusionbench_core.pools.reference import resolve_path

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "NOTICE*", "LICENSE*", "LICENCE*")
_WEIGHTS = (("*.safetensors",), ("*.bin",))


def locate_model(
    reference: str,
    revision: str | None = None,
    *,
    extra: Sequence[str] = (),
    weights: bool = True,
) -> Path:
    """The local file or directory of a model; a hub id is downloaded unless it is in the cache.

    Sub-folders of a repository, which hold copies in other formats, are left out.

    Args:
        reference: A path, a `pkg://` reference, or a hub id, which may end in `@REVISION`.
        revision: Branch, tag or commit of the hub id; wins over `@REVISION`.
        extra: Patterns of files to fetch beside configs, tokenizers, licences and weights.
        weights: Whether to fetch weights: safetensors, or torch files where there are none.

    Raises:
        NotFound: if there is no such path or hub repository.
        Offline: if the hub cannot be reached and the cache does not hold what is needed.
    """
    local = resolve_path(reference)
    if local is not None:
        return local
    name, revision = split_revision(reference, revision)
    files = (*_SMALL_FILES, *extra)
    if not weights:
        return _snapshot(name, revision, files)
    for patterns in _WEIGHTS:
        directory = _snapshot(name, revision, (*files, *patterns))
        if any(True for pattern in patterns for _ in directory.glob(pattern)):
            return directory
    raise _unavailable(
        f"there are no weights of {name!r} in the local cache, and the hub gives none",
        name,
        revision,
        f"looked for {', '.join(pattern for patterns in _WEIGHTS for pattern in patterns)}",
    )


def split_revision(reference: str, revision: str | None = None) -> tuple[str, str | None]:
    """Hub id and revision of a reference such as `openai/clip-vit-base-patch32@main`.

    Args:
        reference: The hub id, which may end in `@REVISION`.
        revision: One that was given apart, and wins.
    """
    name, _, written = reference.partition("@")
    return name, revision or written or None


def hub_commit(directory: Path) -> str | None:
    """The commit that a snapshot in the hub's cache is of; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" else None


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise NotFound(
            f"{name!r} is no local path, and nothing here can ask the hub for it",
            why=_first_line(error),
            fix="pip install huggingface_hub, or give the path of a local copy",
        ) from error
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotFound(
            f"the hub has no model {name!r} that you may read",
            revision=revision,
            why=_first_line(error),
            fix="check the name and the revision; for gated or private models run `hf auth login` first",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise _unavailable(
            f"{name!r} is not in the local cache, and the hub cannot be reached",
            name,
            revision,
            _first_line(error),
        ) from error


def _unavailable(what: str, name: str, revision: str | None, why: str) -> Offline:
    from huggingface_hub import constants

    wanted = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return Offline(
        what,
        looked_in=f"{Path(name).absolute()}\n{constants.HF_HUB_CACHE}",
        why=why,
        fix=f"where there is a network: {wanted}\nor give the path of a local copy",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
