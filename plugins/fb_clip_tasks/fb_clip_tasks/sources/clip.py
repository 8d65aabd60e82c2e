"""A full CLIP model of transformers: vision tower, text tower, projections and temperature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.sources.files import peek_json
from fb_clip_tasks.sources.transformers_source import TransformersSource, model_class
from fusionbench_core import MissingCapability, implements

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)

_RECORD = next(record for record in plugin.SOURCES if record.name == "clip")


@implements(_RECORD)
class Clip(TransformersSource):
    """A `CLIPModel`. Its live module gives image and text embeddings of one width.

    To merge experts that were fine-tuned with a frozen text tower, `clip_vision` reads half as much.
    """

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_clip(directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.loaded("CLIPModel", directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        config = peek_json(path, "config.json")
        return config.get("model_type") == "clip" and model_class(config) in ("", "CLIPModel")

    def make(self, config: Any) -> nn.Module:
        import torch
        from transformers import CLIPModel

        if config.model_type != "clip":
            raise MissingCapability(
                f"a model of type {config.model_type!r} is no full CLIP",
                model=self.directory,
                fix="use source clip_vision for a vision tower alone",
            )
        return CLIPModel._from_config(config, dtype=torch.float32)

    def asset_names(self) -> tuple[str, ...]:
        return (*super().asset_names(), *TOKENIZER)
