"""Where a reference points: a local path, a file inside an installed plugin, or a hub id."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from fusionbench_core.errors import ConfigError, NotFound

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?\Z")


def resolve_path(reference: str, base: Path | None = None) -> Path | None:
    """The local path of a reference, or None if it is a hub id that is no local path.

    `pkg://PACKAGE/PATH` names a file inside an installed package; the package is located, not imported.

    Args:
        reference: What the config says.
        base: Directory that relative paths start from; default the working directory.

    Raises:
        NotFound: if it is neither an existing path nor looks like a hub id.
        ConfigError: if a `pkg://` reference leaves its package.
    """
    if reference.startswith("pkg://"):
        return _inside_package(reference)
    path = Path(reference).expanduser()
    path = path if path.is_absolute() or base is None else base / path
    if path.exists():
        return path
    if _HUB_ID.match(reference) and not reference.startswith((".", "/")):
        return None
    raise NotFound(
        f"there is nothing at {reference!r}",
        why=f"looked for {path.absolute()}",
        fix="give an existing directory or file, or a hub id such as openai/clip-vit-base-patch32",
    )


def _inside_package(reference: str) -> Path:
    package, _, inner = reference.removeprefix("pkg://").partition("/")
    if "." in package or not package.isidentifier():
        raise ConfigError(f"{reference!r} must read pkg://PACKAGE/PATH with a top-level package")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            f"package {package!r} is not installed", reference=reference, fix=f"pip install {package}"
        )
    root = Path(spec.submodule_search_locations[0]).resolve()
    path = (root / inner).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{reference!r} leaves its package")
    if not path.exists():
        raise NotFound(f"package {package!r} holds no {inner!r}", reference=reference)
    return path
