"""The vision tower of CLIP with its projection: the trunk of the classical merging benchmark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.sources.files import peek_json, read_json
from fb_clip_tasks.sources.joined import JoinedCheckpoint
from fb_clip_tasks.sources.transformers_source import TransformersSource, model_class
from fusionbench_core import (
    Checkpoint,
    ConfigError,
    MissingCapability,
    RenamedCheckpoint,
    cache_dir,
    implements,
)

PROJECTION = "visual_projection.weight"
_TOWER = "vision_model."
_CLASSES = ("CLIPVisionModelWithProjection", "CLIPVisionModel")

_RECORD = next(record for record in plugin.SOURCES if record.name == "clip_vision")


@implements(_RECORD)
class ClipVision(TransformersSource):
    """A `CLIPVisionModelWithProjection`, from any CLIP checkpoint.

    Reads a full CLIP (its text tower is left out), a vision tower with its projection, and a tower saved
    without (`CLIPVisionModel`). The last has no embedding that text could be compared with: name the
    CLIP whose projection it was trained with as `projection`; without, the live module's `image_embeds`
    are the pooled features themselves. The names are `vision_model.…` and `visual_projection.weight`.
    """

    projection: str | None = Field(
        default=None, description="where a tower saved without its projection takes it from: a CLIP model"
    )

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_clip(directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.loaded("CLIPVisionModelWithProjection", directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        config = peek_json(path, "config.json")
        kind = config.get("model_type")
        return kind == "clip_vision_model" or (kind == "clip" and model_class(config) in _CLASSES)

    def config(self) -> Any:
        config = super().config()
        if config.model_type == "clip":
            width = config.projection_dim
            config = config.vision_config
            config.projection_dim = width
        if config.model_type != "clip_vision_model":
            raise MissingCapability(
                f"a model of type {config.model_type!r} has no CLIP vision tower",
                model=self.directory,
                fix="use source image_classifier, or open_clip for open_clip's own checkpoints",
            )
        if self._borrowed is not None:
            config.projection_dim = self._borrowed.info(PROJECTION).shape[0]
        return config

    def make(self, config: Any) -> nn.Module:
        import torch
        from transformers import CLIPVisionModelWithProjection

        module: nn.Module = CLIPVisionModelWithProjection._from_config(config, dtype=torch.float32)
        if not self.projects:
            # The same names as with a projection, so that towers with and without can share a pool.
            module.add_module("visual_projection", nn.Identity())
        return module

    @property
    def projects(self) -> bool:
        """Whether there is a projection, its own or a borrowed one."""
        return PROJECTION in self._tensors or self._borrowed is not None

    def open_inner(self) -> Checkpoint:
        return JoinedCheckpoint(self._tensors, self._borrowed) if self._borrowed else self._tensors

    @cached_property
    def _tensors(self) -> Checkpoint:
        return RenamedCheckpoint(super().open_inner(), _vision_name)

    @cached_property
    def _borrowed(self) -> Checkpoint | None:
        """The projection of another model, if this one has none and names one."""
        if self.projection is None or PROJECTION in self._tensors:
            return None
        lender = ClipVision.model_validate({"path": self.projection})._tensors
        if PROJECTION not in lender:
            raise ConfigError(
                f"{self.projection!r} holds no projection", fix="name a full CLIP model as `projection`"
            )
        return RenamedCheckpoint(lender, lambda name: name if name == PROJECTION else None)

    def assets(self) -> Sequence[Path]:
        """As ever; but a config.json that describes a full CLIP is replaced by the vision tower's own."""
        raw = read_json(self.directory / "config.json")
        saved_as = _CLASSES[0] if self.projects else _CLASSES[1]
        if raw.get("model_type") == "clip_vision_model" and model_class(raw) == saved_as:
            return super().assets()
        config = self.config()
        config.architectures = [saved_as]
        # The key of the file is what it says; two processes write the same.
        text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=str) + "\n"
        own = cache_dir("configs", hashlib.sha256(text.encode()).hexdigest()[:24]) / "config.json"
        if not own.exists():
            own.write_text(text, encoding="utf-8")
        return (own, *(asset for asset in super().assets() if asset.name != "config.json"))


def _vision_name(name: str) -> str | None:
    """The name of a vision tensor in the live module; None for everything else.

    A `CLIPVisionModel` whose state dict was written as it is has names without `vision_model.`.
    """
    if name == PROJECTION or name.startswith(_TOWER):
        return None if name.endswith(".position_ids") else name
    if name.startswith(("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")):
        return None if name.endswith(".position_ids") else f"{_TOWER}{name}"
    return None
