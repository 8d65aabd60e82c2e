"""What the image tasks share: data, preprocessing, batches, fingerprints."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import torch
from pydantic import Field

from fb_clip_tasks.tasks.hub_images import HubImages, HubReference
from fb_clip_tasks.tasks.images import ArrayImages, Channels, Images
from fb_clip_tasks.tasks.preprocessing import normalised, resized
from fusionbench_core import Batch, ClassificationTask, TaskCard


class ImageTask(ClassificationTask):
    """Classification of images; subclasses attach the head."""

    evaluator_version: ClassVar[int] = 1
    """Raised whenever the same parameters and data would measure something else."""

    dataset: str | HubReference = Field(
        description="name of an embedded data set, a path to NAME.npz with its card, pkg://…, or {hub: ID}"
    )
    image_size: int | None = Field(
        default=None, gt=0, description="side in pixels that images are resized to; default: the card's"
    )
    mean: Channels | None = Field(default=None, description="mean of each channel; default: the card's")
    std: Channels | None = Field(default=None, description="deviation of each channel; default: the card's")

    @cached_property
    def images(self) -> Images:
        """The data, opened on first use."""
        if isinstance(self.dataset, HubReference):
            return HubImages(self.dataset, self.image_size or 224)
        return ArrayImages.at(self.dataset)

    def card(self) -> TaskCard:
        facts = self.images.card
        return TaskCard(
            title=facts.title,
            version=facts.version,
            source=" ".join(part for part in (facts.source, _short(facts.source_version)) if part),
            licence=facts.licence,
            splits={split: content.n for split, content in facts.splits.items()},
            labels=facts.labels,
            description=facts.description,
        )

    def batches(
        self,
        split: str,
        *,
        labelled: bool,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        labels = self.images.labels(split)
        order = torch.arange(len(labels))
        if seed is not None:
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        for indices in order[:limit].split(batch_size):
            inputs = {"pixel_values": self._prepared(split, indices)}
            yield Batch(inputs, labels[indices] if labelled else None, indices)

    def fingerprint(self) -> str:
        parameters = self.model_dump(mode="json", exclude={"name", *self.located})
        facts = {
            "evaluator": f"{self.record.name} {self.evaluator_version}",
            "data": [self.images.fingerprint(), self.images.card.version],
            "parameters": parameters,
            "head": self.head_fingerprint(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    located: ClassVar[tuple[str, ...]] = ("dataset",)
    """Parameters that say where something is; the fingerprint has the content's hash instead."""

    @abstractmethod
    def head_fingerprint(self) -> str:
        """Hash of what decides the head."""

    def _prepared(self, split: str, indices: torch.Tensor) -> torch.Tensor:
        pixels = self.images.pixels(split, indices)
        size = self.image_size or self.images.card.image_size
        if size is not None and tuple(pixels.shape[-2:]) != (size, size):
            # Bicubic interpolation overshoots; pixels cannot.
            pixels = resized(pixels, (size, size)).clamp(0, 1)
        return normalised(pixels, self.mean or self.images.card.mean, self.std or self.images.card.std)


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
