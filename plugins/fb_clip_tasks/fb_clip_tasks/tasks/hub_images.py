"""Image data sets read with the library `datasets`: a hub id, or a local folder of images or parquet."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fb_clip_tasks.sources.files import first_line
from fb_clip_tasks.tasks.images import Channels, ImageCard, Images, SplitFacts
from fusionbench_core import ConfigError, MissingCapability, Offline, TaskError

CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
"""What OpenAI's CLIP models were trained with."""


class HubReference(BaseModel):
    """A data set of the hub, or a local folder: `imagefolder` or `parquet` with `data_dir`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str = Field(description="data set id, a local directory, or a loader's name such as imagefolder")
    config: str | None = Field(default=None, description="configuration of the data set, e.g. cropped_digits")
    data_dir: str | None = Field(default=None, description="directory of a local loader")
    revision: str | None = Field(default=None, description="branch, tag or commit")
    splits: dict[str, str] = Field(
        {"train": "train", "test": "test"},
        description="split -> the data set's name of it; slices such as train[:90%] are fine",
    )
    image: str = Field(default="image", description="column of the images")
    label: str = Field(default="label", description="column of the class indices")


class HubImages(Images):
    """Images resized as CLIP does it: shortest side bicubically to `size`, then the centre is cut out.

    Args:
        reference: Where the data is.
        size: Height and width in pixels.
    """

    def __init__(self, reference: HubReference, size: int = 224) -> None:
        self._reference = reference
        self._size = size
        self._splits: dict[str, Any] = {}

    @cached_property
    def card(self) -> ImageCard:
        # The classes are known from any split; sizes only of those there are.
        sizes = {split: SplitFacts(n=len(self._split(split))) for split in self._reference.splits}
        feature = self._split("test").features[self._reference.label]
        names = getattr(feature, "names", None)
        if not names:
            raise ConfigError(
                f"column {self._reference.label!r} of {self._reference.hub!r} holds no class labels",
                fix="name the column as `label:` under `dataset:`",
            )
        return ImageCard(
            name=self._reference.hub,
            version=1,
            title=self._reference.hub,
            labels=tuple(name.replace("_", " ") for name in names),
            image_size=self._size,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            source=self._reference.hub,
            source_version=self._reference.revision or "",
            licence=self._split("test").info.license or "see the source",
            splits=sizes,
        )

    def pixels(self, split: str, indices: Tensor) -> Tensor:
        rows = self._split(split)[indices.tolist()]
        return torch.stack([self._prepared(image) for image in rows[self._reference.image]])

    def labels(self, split: str) -> Tensor:
        return torch.tensor(self._split(split)[self._reference.label][:], dtype=torch.int64)

    def fingerprint(self) -> str:
        facts = [self._reference.model_dump_json(), str(self._size)]
        facts += [f"{name}:{self._split(name)._fingerprint}" for name in sorted(self._reference.splits)]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def _prepared(self, image: Any) -> Tensor:
        """`(3, size, size)` in [0, 1]."""
        from PIL.Image import Resampling

        image = image.convert("RGB")
        scale = self._size / min(image.size)
        width, height = (max(self._size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Resampling.BICUBIC)
        left, top = (width - self._size) // 2, (height - self._size) // 2
        image = image.crop((left, top, left + self._size, top + self._size))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)

    def _split(self, split: str) -> Any:
        if split not in self._splits:
            self._splits[split] = self._load(split)
        return self._splits[split]

    def _load(self, split: str) -> Any:
        wanted = self._reference
        if split not in wanted.splits:
            raise TaskError(
                f"data set {wanted.hub} has no split {split!r}",
                fix=f"add it under `dataset.splits`, e.g. {split}: 'train[-10%:]'",
            )
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise MissingCapability(
                "reading data sets of the hub needs the library `datasets`",
                fix="pip install 'fb-clip-tasks[hub]'",
            ) from error
        try:
            return load_dataset(
                wanted.hub,
                wanted.config,
                data_dir=wanted.data_dir,
                split=wanted.splits[split],
                revision=wanted.revision,
            )
        except ValueError as error:
            raise TaskError(f"data set {wanted.hub!r} cannot be read", why=first_line(error)) from error
        except Exception as error:
            # The library raises its own, the hub client's and fsspec's errors here, by version.
            from datasets import config

            raise Offline(
                f"data set {wanted.hub!r} is not in the local cache, and the hub cannot be reached",
                looked_in=config.HF_DATASETS_CACHE,
                why=first_line(error),
                fix=f"where there is a network: hf download --repo-type dataset {wanted.hub}\n"
                "or name a local directory, or an embedded data set: dataset: mnist",
            ) from error
