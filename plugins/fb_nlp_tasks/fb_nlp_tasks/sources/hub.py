"""Directories of models, which may be on the hub."""

from __future__ import annotations

from pathlib import Path

from fusionbench_core import locate_model


def locate(reference: str, revision: str | None = None, *, code: bool = False, weights: bool = True) -> Path:
    """The local directory of a model; a hub id is downloaded unless it is in the cache.

    Args:
        reference: A path, a `pkg://` reference, or a hub id, which may end in `@REVISION`.
        revision: Branch, tag or commit of the hub id; wins over `@REVISION`.
        code: Whether to fetch the repository's Python files too.
        weights: Whether to fetch its weights.

    Raises:
        NotFound: if there is no such path or hub repository.
        Offline: if the hub cannot be reached and the cache does not hold what is needed.
    """
    found = locate_model(reference, revision, extra=("*.py",) if code else (), weights=weights)
    return found if found.is_dir() else found.parent
