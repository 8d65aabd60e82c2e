"""What the transformers sources share: where the files are, the config, names, a fast skeleton."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import nn

from fb_clip_tasks.sources.blank import blank, on_meta
from fb_clip_tasks.sources.files import first_line, present, read_json
from fb_clip_tasks.sources.names import module_names, remembered, require_all
from fusionbench_core import (
    Checkpoint,
    CorruptFile,
    MissingCapability,
    ModelSource,
    RenamedCheckpoint,
    StateDictCheckpoint,
    hub_commit,
    locate_model,
    open_checkpoint,
)

NOTICES = ("NOTICE*", "LICENSE*", "LICENCE*")
"""What a licence may ask a derived model to carry along."""

PROCESSOR = ("preprocessor_config.json", "processor_config.json")


class TransformersSource(ModelSource):
    """A model in transformers' format: a directory with config.json and weights, or a hub id.

    Names are those of the live module's state dict, whatever version wrote the file. No code beside the
    weights is ever run.
    """

    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")

    @abstractmethod
    def make(self, config: Any) -> nn.Module:
        """A module of the architecture that a transformers config describes, on the current device."""

    def asset_names(self) -> Sequence[str]:
        """Names and patterns of the files that an artefact carries along."""
        return ("config.json", *PROCESSOR, *NOTICES)

    @cached_property
    def directory(self) -> Path:
        """Where the files are; a hub id is downloaded on first use.

        Raises:
            NotFound: if there is no such model.
            Offline: if it is on the hub and cannot be had now.
        """
        found = locate_model(self.path, self.revision)
        return found if found.is_dir() else found.parent

    @cached_property
    def meta(self) -> Any:
        """The model on the meta device: names and shapes, no memory."""
        return on_meta(lambda: self.make(self.config()))

    def config(self) -> Any:
        """A fresh transformers config.

        Raises:
            NotFound, CorruptFile: if config.json is missing or malformed.
            MissingCapability: if this version of transformers does not know the model type.
        """
        import transformers

        raw = read_json(self.directory / "config.json")
        kind = raw.get("model_type")
        if not isinstance(kind, str):
            raise CorruptFile("config.json names no model_type", file=self.directory / "config.json")
        try:
            return transformers.AutoConfig.from_pretrained(self.directory, local_files_only=True)
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            raise MissingCapability(
                f"transformers {transformers.__version__} cannot read the config of model type {kind!r}",
                model=self.directory,
                why=first_line(error),
                fix="upgrade transformers if the model is newer; code beside a model is never run",
            ) from error

    def open(self) -> Checkpoint:
        inner = self.open_inner()
        stored = inner.keys()
        names = remembered(self._names_key(stored), lambda: module_names(stored, self.meta))
        if names.renamed is None:
            return self.open_converted()
        found = RenamedCheckpoint(inner, names.renamed.get)
        require_all(names.wanted, found, names.model, self.advice())
        return found

    def _names_key(self, stored: Sequence[str]) -> str:
        """Everything that the names depend on: config, stored names, and the library that knows the rules."""
        config = json.dumps(read_json(self.directory / "config.json"), sort_keys=True)
        return "\n".join([version("transformers"), type(self).__name__, config, *stored])

    def open_inner(self) -> Checkpoint:
        """The weights under the names on disk."""
        local = locate_model(self.path, self.revision)
        return open_checkpoint(local if local.is_file() else self.directory)

    def open_converted(self) -> Checkpoint:
        """Read through transformers, for the few families whose old files need more than other names."""
        module = type(self.meta).from_pretrained(self.directory, local_files_only=True, dtype="auto")
        return StateDictCheckpoint(module.state_dict(), str(self.directory))

    def advice(self) -> str:
        """What to do if tensors are missing."""
        return "check that weights and config.json belong together"

    def skeleton(self) -> nn.Module:
        return blank(lambda: self.make(self.config()))

    def commit(self) -> str | None:
        return hub_commit(self.directory)

    def assets(self) -> Sequence[Path]:
        return present(self.directory, self.asset_names())

    def for_artefact(self, directory: Path) -> ModelSource:
        # A fresh source: what this one has opened stays with it.
        return type(self).model_validate({"path": str(directory)})


def model_class(config: dict[str, Any]) -> str:
    """The class name a raw config.json says the model was saved from; empty if it says none."""
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else ""
