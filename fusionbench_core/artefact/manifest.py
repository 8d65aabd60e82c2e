"""`fusion.json`: what an artefact is, how it was made, and how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fusionbench_core import __version__
from fusionbench_core.errors import CorruptFile, NotFound

NAME = "fusion.json"
FORMAT = 1
BASE = "_base_"
"""The member that an adapter changes."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `fusion.json`. It holds no time and no host, so equal inputs give equal files.

    Attributes:
        kind: `weights` of the source's architecture, a `module` that a builder rebuilds, or an `adapter`
            in PEFT's layout, which changes the member `_base_`.
        method: `name`, `parameters`, `distribution`, `version`.
        source: Model source that knows the architecture: `name`, `parameters`.
        builder: Registered builder of a module.
        arguments: The builder's arguments.
        tensors: Whether the artefact holds tensors of its own.
        members: Models a module refers to: name -> `source`, `parameters`, `fingerprint`.
        base_models: References of the base and the models, for the reader.
        seed: Seed of the run.
        content_hash: Fingerprint of the tensors.
        core: Version of the core that wrote it.
    """

    kind: Literal["weights", "module", "adapter"]
    method: Mapping[str, Any]
    source: Mapping[str, Any] | None
    builder: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tensors: bool = True
    members: Mapping[str, Any] = field(default_factory=dict)
    base_models: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    content_hash: str = ""
    core: str = __version__
    format: int = FORMAT

    def to_text(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """Read the `fusion.json` of an artefact.

    Raises:
        NotFound: if the directory holds none.
        CorruptFile: if it is malformed or of a later format.
    """
    path = directory / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise CorruptFile(
                f"this artefact has format {version}; this version reads up to {FORMAT}",
                file=path,
                fix="pip install --upgrade fusionbench-core",
            )
        known = Manifest.__dataclass_fields__
        return Manifest(**{key: value for key, value in data.items() if key in known})
    except FileNotFoundError as error:
        raise NotFound(f"{directory} is no artefact", why=f"it holds no {NAME}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{NAME} is malformed", file=path, why=str(error)) from error
