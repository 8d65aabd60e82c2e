"""Image classifiers of transformers with their own heads: ViT, ResNet, ConvNeXt, DINOv2, …"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.sources.files import first_line, peek_json
from fb_clip_tasks.sources.transformers_source import TransformersSource, model_class
from fusionbench_core import MissingCapability, implements

_RECORD = next(record for record in plugin.SOURCES if record.name == "image_classifier")


@implements(_RECORD)
class ImageClassifier(TransformersSource):
    """Whatever `AutoModelForImageClassification` knows.

    Running statistics and counters of batch norm are part of the weights. Where experts' heads differ,
    name the head's tensors in `modelpool.heads`, and give each task its expert's with `head_from`.
    """

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_classifier(directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.loaded("ResNetForImageClassification", directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        return model_class(peek_json(path, "config.json")).endswith("ForImageClassification")

    def make(self, config: Any) -> nn.Module:
        import torch
        from transformers import AutoModelForImageClassification

        try:
            return AutoModelForImageClassification.from_config(config, dtype=torch.float32)
        except (ValueError, ImportError) as error:
            raise MissingCapability(
                f"transformers has no image classifier for model type {config.model_type!r}",
                model=self.directory,
                why=first_line(error),
                fix="use source clip or clip_vision for CLIP models",
            ) from error

    def advice(self) -> str:
        return (
            "a pre-trained trunk may lack the classifier: use a base that has one, of any number of classes"
        )
