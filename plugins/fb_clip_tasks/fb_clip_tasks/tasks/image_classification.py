"""Classification of images with the model's own head, or with an expert's."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.sources.image_classifier import ImageClassifier
from fb_clip_tasks.tasks.image_task import ImageTask
from fb_clip_tasks.tasks.preprocessing import resized, size_of
from fusionbench_core import ConfigError, RenamedCheckpoint, TaskError, implements

_RECORD = next(record for record in plugin.TASKS if record.name == "image_classification")


@implements(_RECORD)
class ImageClassification(ImageTask):
    """The model classifies by itself.

    A merged model has one head at most; experts of different tasks have one each. `head_from` names the
    expert whose head is put in place of the model's while this task is measured or adapted to.
    """

    located: ClassVar[tuple[str, ...]] = ("dataset", "head_from")

    head_from: str | None = Field(
        default=None,
        description="an image classifier whose head is used: directory or hub id; default: its own",
    )
    head: tuple[str, ...] | None = Field(
        default=None,
        description="shell patterns of the head's tensors; default: all outside the model's own base model",
    )

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        return {"dataset": "digits"}

    @classmethod
    def example_trunk(cls) -> nn.Module:
        return examples.classifier(classes=10)

    @cached_property
    def expert_head(self) -> dict[str, Tensor]:
        """Name -> tensor of the expert's head; empty without `head_from`.

        Raises:
            InputError: if the expert cannot be read.
            ConfigError: if it has no tensor of these names.
        """
        if self._expert is None:
            return {}
        checkpoint = self._expert.open()
        prefix = f"{self._expert.meta.base_model_prefix}."
        names = [
            name
            for name in checkpoint
            if (
                any(fnmatchcase(name, pattern) for pattern in self.head)
                if self.head
                else not name.startswith(prefix)
            )
        ]
        if not names:
            raise ConfigError(
                f"task {self.name}: {self.head_from!r} has no tensors of a head",
                fix="name them as `head`, e.g. head: ['classifier.*']",
            )
        return {name: checkpoint.tensor(name).float().clone() for name in names}

    def attach(self, trunk: nn.Module) -> nn.Module:
        classes = len(self.images.card.labels)
        if not self.expert_head:
            return ImageClassifierModel(trunk, classes, self.name)
        return BorrowedHead(trunk, self.expert_head, classes, self.name)

    def head_fingerprint(self) -> str:
        if self._expert is None:
            return "own"
        head = self.expert_head
        return RenamedCheckpoint(
            self._expert.open(), lambda name: name if name in head else None
        ).fingerprint()

    @cached_property
    def _expert(self) -> ImageClassifier | None:
        return None if self.head_from is None else ImageClassifier.model_validate({"path": self.head_from})


class ImageClassifierModel(nn.Module):
    """A classifier as it is.

    Args:
        trunk: Gives logits, as a tensor or as the attribute `logits` of what it gives.
        classes: How many classes the task has.
        task: Name for messages.
    """

    def __init__(self, trunk: nn.Module, classes: int, task: str) -> None:
        super().__init__()
        self.trunk = trunk
        self._classes = classes
        self._task = task
        self._size = size_of(trunk)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits `(n, classes)` of images `(n, 3, height, width)`.

        Raises:
            TaskError: if the model gives no logits, or too few.
        """
        if self._size is not None:
            pixel_values = resized(pixel_values, self._size)
        output = self.run(pixel_values)
        logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
        if logits is None or logits.ndim != 2 or logits.shape[1] < self._classes:
            what = "no logits" if logits is None else f"logits of shape {list(logits.shape)}"
            raise TaskError(
                f"task {self._task}: the model gives {what}, and there are {self._classes} classes",
                fix="set `head_from` to the expert of this task, or use task zero_shot_image_classification",
            )
        return logits

    def run(self, pixel_values: Tensor) -> Any:
        """What the model gives for images of its size."""
        return self.trunk(pixel_values)


class BorrowedHead(ImageClassifierModel):
    """A classifier with another's head in place of its own; its own tensors are not touched.

    Args:
        trunk: The classifier.
        head: Name in the trunk -> tensor, of any number of classes; buffers that are not stored.
        classes: How many classes the task has.
        task: Name for messages.
    """

    def __init__(self, trunk: nn.Module, head: Mapping[str, Tensor], classes: int, task: str) -> None:
        super().__init__(trunk, classes, task)
        unknown = sorted(set(head) - set(trunk.state_dict()))
        if unknown:
            raise TaskError(
                f"task {task}: the model has no place for an expert's head", missing=", ".join(unknown[:4])
            )
        self._places = dict(head)
        for number, tensor in enumerate(self._places.values()):
            self.register_buffer(f"head_{number}", tensor, persistent=False)

    def run(self, pixel_values: Tensor) -> Any:
        head = {name: getattr(self, f"head_{number}") for number, name in enumerate(self._places)}
        return functional_call(self.trunk, head, (pixel_values,))
