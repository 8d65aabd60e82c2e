"""mergekit's references to models: `path@revision+adapter@revision`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionbench_core import ConfigError

STAGE = "stage://"


@dataclass(frozen=True)
class Model:
    """A path or hub id, with a revision, and a LoRA adapter on it."""

    path: str
    revision: str | None = None
    lora: str | None = None
    lora_revision: str | None = None

    @property
    def label(self) -> str:
        """A short name, which the adapter gives it if there is one."""
        last = (self.lora or self.path).rstrip("/").rpartition("/")[2]
        return re.sub(r"[^\w-]+", "_", last).strip("_") or "model"

    @property
    def is_remote(self) -> bool:
        """Whether it looks like a hub id, and is no local path."""
        return not (Path(self.path).expanduser().exists() or self.path.startswith((".", "/", "~", STAGE)))

    def reference(self) -> str | dict[str, Any]:
        """The same as a reference of a model pool."""
        model = self.path if self.revision is None else f"{self.path}@{self.revision}"
        if self.lora is None:
            return model
        adapter = {"source": "peft", "path": self.lora, "base": model}
        return adapter if self.lora_revision is None else {**adapter, "revision": self.lora_revision}


def read_model(said: Any, where: str) -> Model:
    """Read a reference: a string, or mappings of mergekit's.

    Raises:
        ConfigError: if it is none.
    """
    if isinstance(said, str):
        model, *lora = said.split("+")
        if len(lora) > 1:
            raise ConfigError(
                f"{said!r} has several adapters",
                config=where,
                fix="merge one after the other, each in a stage of its own",
            )
        return Model(*_path(model, where), *(_path(lora[0], where) if lora else ()))
    if isinstance(said, Mapping) and said.get("model") is not None:
        if said.get("override_architecture"):
            raise ConfigError(
                "the architecture of a model cannot be overridden here",
                config=f"{where}.override_architecture",
                why="tensors are matched by name and shape, whatever the class of the model",
                fix="remove the key, or correct `architectures` in the model's config.json",
            )
        lora = said.get("lora")
        return Model(
            *_path(said["model"], where), *(_path(lora, f"{where}.lora") if lora is not None else ())
        )
    raise ConfigError(f"{said!r} is no reference to a model", config=where, fix="write a path or a hub id")


def _path(said: Any, where: str) -> tuple[str, str | None]:
    if isinstance(said, Mapping):
        return str(said.get("path")), said.get("revision")
    path, *revision = str(said).split("@")
    if len(revision) > 1 or not path:
        raise ConfigError(f"{said!r} is no path or hub id", config=where, fix="write PATH or PATH@REVISION")
    return path, revision[0] if revision else None
