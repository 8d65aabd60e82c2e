"""How names map to an architecture's, kept between runs: to find out, transformers must be imported.

That takes some seconds, in which a merge is done. What is kept is only what follows from config.json, the
names, shapes and dtypes on disk, and the version of transformers; nothing that depends on values.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fb_nlp_tasks.sources.aligned import AlignedCheckpoint, Names, align
from fb_nlp_tasks.sources.architecture import Architecture, read_config
from fusionbench_core import Checkpoint, cache_dir

FORMAT = 1
FIELDS = {"direct", "dropped", "aliases", "model", "pooler", "untied"}


def align_remembered(inner: Checkpoint, architecture: Architecture) -> tuple[AlignedCheckpoint, Architecture]:
    """What `align` gives, without asking transformers if it has been asked before.

    Raises:
        IncompatibleModels: as `align` does.
    """
    file = None if architecture.trust_remote_code else _file(inner, architecture)
    known = _read(file) if file else None
    if known is not None:
        fitted = replace(architecture, pooler=known["pooler"], untied=known["untied"])
        names = Names(known["direct"], {}, tuple(known["dropped"]))
        return AlignedCheckpoint(inner, names, fitted, known["aliases"], known["model"]), fitted
    view, fitted = align(inner, architecture)
    if file and not (view.names.regrouped or fitted.untied or _by_value(inner, view)):
        entry = {
            "direct": dict(view.names.direct),
            "dropped": list(view.names.dropped),
            "aliases": dict(view.aliases),
            "model": view.model,
            "pooler": fitted.pooler,
            "untied": fitted.untied,
        }
        with contextlib.suppress(OSError):
            temporary = file.with_suffix(".part")
            temporary.write_text(json.dumps(entry), encoding="utf-8")
            temporary.replace(file)
    return view, fitted


def _by_value(inner: Checkpoint, view: AlignedCheckpoint) -> bool:
    """Whether it took values to tell which names are tied: both are on disk, and not as one tensor."""
    on_disk = set(inner) - set(inner.aliases)
    return any(view.names.direct.get(name) in on_disk for name in view.aliases)


def _file(inner: Checkpoint, architecture: Architecture) -> Path | None:
    facts: dict[str, Any] = {
        "format": FORMAT,
        "transformers": version("transformers"),
        "auto": architecture.auto,
        "config": read_config(architecture.directory),
        "tensors": sorted(f"{name} {inner.info(name)}" for name in inner),
        "aliases": sorted(inner.aliases.items()),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    try:
        return cache_dir("names") / f"{key[:32]}.json"
    except OSError:
        return None


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        return (
            entry if {"direct", "dropped", "aliases", "model", "pooler", "untied"} <= entry.keys() else None
        )
    except (OSError, ValueError, AttributeError):
        return None
