"""open_clip models from local checkpoints, whole or their visual towers alone."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.sources.blank import blank_parameters, on_meta
from fb_clip_tasks.sources.files import first_line, peek_json, present, read_json
from fb_clip_tasks.sources.names import require_all
from fb_clip_tasks.sources.transformers_source import NOTICES
from fusionbench_core import (
    Checkpoint,
    ConfigError,
    CorruptFile,
    MissingCapability,
    ModelSource,
    RenamedCheckpoint,
    cache_dir,
    hub_commit,
    implements,
    locate_model,
    open_checkpoint,
)

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""File names in a directory, in open_clip's own order of preference."""

_WRAPPERS = ("module.", "model.")
_VISUAL = "visual."

_RECORD = next(record for record in plugin.SOURCES if record.name == "open_clip")


@implements(_RECORD)
class OpenClip(ModelSource):
    """An open_clip model: a checkpoint, and the name of an architecture or a config beside it.

    With `visual_only` the live module is the visual tower, a function of pixels that gives embeddings,
    and the names are without `visual.`. Prefixes that training leaves (`module.`, `model.`) are stripped.
    Checkpoints that are pickles of whole modules are refused; save their state dict.
    """

    model: str | None = Field(
        default=None,
        description=f"name of an open_clip architecture, e.g. ViT-B-32; default: {CONFIG} beside it",
    )
    visual_only: bool = Field(default=False, description="read the visual tower alone")
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_open_clip(directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.loaded_by_open_clip(directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        return bool(peek_json(path, CONFIG)) and not peek_json(path, "config.json")

    @cached_property
    def location(self) -> Path:
        """The checkpoint file, or the directory that holds it."""
        return locate_model(self.path, self.revision)

    @property
    def directory(self) -> Path:
        """Where config and weights are."""
        return self.location if self.location.is_dir() else self.location.parent

    @cached_property
    def description(self) -> dict[str, Any]:
        """`model_cfg` and `preprocess_cfg`, as in open_clip's own config files.

        Raises:
            ConfigError: if no architecture has that name.
            NotFound, CorruptFile: if no name is given, and there is no readable config.
        """
        if self.model is None:
            content = read_json(self.directory / CONFIG)
            if not isinstance(content.get("model_cfg"), dict):
                raise CorruptFile(f"{CONFIG} holds no model_cfg", file=self.directory / CONFIG)
            return content
        import open_clip

        found = open_clip.get_model_config(self.model)
        if found is None:
            near = difflib.get_close_matches(self.model, open_clip.list_models(), n=3, cutoff=0.5)
            raise ConfigError(
                f"open_clip has no architecture {self.model!r}",
                fix=f"did you mean {' or '.join(near)}?" if near else "open_clip.list_models() lists them",
            )
        return {"model_cfg": found, "preprocess_cfg": {}}

    def open(self) -> Checkpoint:
        inner = open_checkpoint(self._weights())
        names = _names(inner.keys(), visual_only=self.visual_only)
        wanted = self._keys
        found = RenamedCheckpoint(inner, lambda name: names(name) if names(name) in wanted else None)
        require_all(
            wanted,
            found,
            f"the open_clip architecture {self.model or self.directory.name}",
            "check `model`; `visual_only: true` reads the visual tower alone",
        )
        return found

    def skeleton(self) -> nn.Module:
        module = self.whole()
        return module.get_submodule("visual") if self.visual_only else module

    def whole(self) -> nn.Module:
        """Both towers with arbitrary weights, whatever `visual_only` says.

        Raises:
            MissingCapability: if a tower needs a config from the hub that is not in the cache, or
                open_clip cannot make it.
        """
        return blank_parameters(lambda: make(self.description["model_cfg"], self.directory))

    @cached_property
    def _keys(self) -> frozenset[str]:
        module = on_meta(lambda: make(self.description["model_cfg"], self.directory))
        return frozenset((module.visual if self.visual_only else module).state_dict())

    def _weights(self) -> Path:
        if self.location.is_file():
            return self.location
        return next(iter(present(self.location, WEIGHTS)), self.location)

    def commit(self) -> str | None:
        return hub_commit(self.directory)

    def assets(self) -> Sequence[Path]:
        """open_clip's config, written where there is none, and the tokenizer's files."""
        others = present(self.directory, ("tokenizer*.json", "vocab*", "merges.txt", *NOTICES))
        if self.model is None:
            return (self.directory / CONFIG, *others)
        text = json.dumps(self.description, indent=2, sort_keys=True) + "\n"
        own = cache_dir("configs", hashlib.sha256(text.encode()).hexdigest()[:24]) / CONFIG
        if not own.exists():
            own.write_text(text, encoding="utf-8")
        return (own, *others) if self.location.is_dir() else (own,)

    def for_artefact(self, directory: Path) -> ModelSource:
        return OpenClip.model_validate({"path": str(directory), "visual_only": self.visual_only})


def make(model_cfg: dict[str, Any], directory: Path) -> nn.Module:
    """The module that a `model_cfg` describes; no pre-trained weights are fetched.

    Raises:
        MissingCapability: if open_clip cannot make it.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    settings = copy.deepcopy(model_cfg)
    text = settings.get("text_cfg", {})
    custom = settings.pop("custom_text", False) or "hf_model_name" in text
    if "timm_model_name" in settings.get("vision_cfg", {}):
        settings["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    kind = (CoCa if "multimodal_cfg" in settings else CustomTextCLIP) if custom else CLIP
    try:
        return kind(**settings)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise MissingCapability(
            f"open_clip cannot make the model that {directory} describes", why=first_line(error)
        ) from error


def _names(stored: Iterable[str], *, visual_only: bool) -> Callable[[str], str | None]:
    """A function from stored names to the module's, judged by what all of them have in common."""
    stored = list(stored)
    wrapper = ""
    for prefix in _WRAPPERS:
        if all(name.startswith(wrapper + prefix) for name in stored):
            wrapper += prefix
    has_towers = any(name.startswith(wrapper + _VISUAL) for name in stored)

    def rename(name: str) -> str | None:
        name = name.removeprefix(wrapper)
        if not (visual_only and has_towers):
            return name
        return name.removeprefix(_VISUAL) if name.startswith(_VISUAL) else None

    return rename
