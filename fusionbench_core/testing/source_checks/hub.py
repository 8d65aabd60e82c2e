"""The hub's cache, imitated: a model under two commits, and no network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusionbench_core.testing.sandbox import no_network

NAME = "conformance-kit/example"
MISSING = "conformance-kit/not-in-the-cache"


@dataclass(frozen=True)
class Hub:
    """What the cache holds.

    Attributes:
        main: Commit of the branch `main`: the model itself.
        other: Another commit: the same model with all weights zero.
        attempts: What was reached for over the network.
    """

    main: str
    other: str
    attempts: list[str]


@contextmanager
def imitated_hub(model: Path | None = None) -> Iterator[Hub]:
    """A cache that holds the files of a model directory as `NAME`; an empty one without."""
    hub = Hub("1" * 40, "2" * 40, [])
    with tempfile.TemporaryDirectory(prefix="fb-hub-") as scratch:
        if model is not None:
            place = Path(scratch) / f"models--{NAME.replace('/', '--')}"
            shutil.copytree(model, place / "snapshots" / hub.main)
            shutil.copytree(model, place / "snapshots" / hub.other)
            (place / "refs").mkdir()
            (place / "refs" / "main").write_text(hub.main)
            for file in (place / "snapshots" / hub.other).rglob("*.safetensors"):
                _blank(file)
        with _cache(Path(scratch)), no_network() as attempts:
            yield hub
            hub.attempts.extend(attempts)


def _blank(file: Path) -> None:
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    file.write_bytes(content[:start] + bytes(len(content) - start))


@contextmanager
def _cache(directory: Path) -> Iterator[None]:
    variables = {"HF_HUB_CACHE": str(directory), "HF_HUB_OFFLINE": "1"}
    kept = {name: os.environ.get(name) for name in variables}
    # The library reads its environment when it is imported: once, and perhaps long ago.
    constants = _constants()
    settings = {"HF_HUB_CACHE": str(directory), "HF_HUB_OFFLINE": True}
    before = {name: getattr(constants, name) for name in settings} if constants else {}
    os.environ.update(variables)
    for name in before:
        setattr(constants, name, settings[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _constants():
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants

    return constants
