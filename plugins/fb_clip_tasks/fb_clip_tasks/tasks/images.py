"""Labelled images and their card: the embedded benchmark's format, `NAME.npz` beside `NAME.json`."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fb_clip_tasks.sources.files import read_json
from fusionbench_core import ConfigError, CorruptFile, NotFound, TaskError, resolve_path

EMBEDDED = "pkg://fb_clip_tasks/embedded/data"
"""Where the tasks live that are named without a path."""

Channels = tuple[float, float, float]


class SplitFacts(BaseModel):
    """Size of a split, and the hash of its pixels and labels."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    n: int = Field(gt=0)
    sha256: str | None = None


class ImageCard(BaseModel):
    """What the card of a data set says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: int
    title: str
    description: str = ""
    labels: tuple[str, ...] = Field(min_length=2)
    templates: tuple[str, ...] = ()
    image_size: int | None = None
    mean: Channels = (0.5, 0.5, 0.5)
    std: Channels = (0.5, 0.5, 0.5)
    source: str = ""
    source_version: str = ""
    licence: str = "unknown"
    splits: Mapping[str, SplitFacts]


class Images(ABC):
    """A data set: a card, and for each split pixels and labels by position."""

    @property
    @abstractmethod
    def card(self) -> ImageCard:
        """Facts about the data."""

    @abstractmethod
    def pixels(self, split: str, indices: Tensor) -> Tensor:
        """Images `(n, 3, height, width)`, float32 in [0, 1]."""

    @abstractmethod
    def labels(self, split: str) -> Tensor:
        """Class indices of a whole split, `(n,)`, int64."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that is measured on."""


class ArrayImages(Images):
    """Images in one `.npz`: `x_SPLIT` uint8 `[n, h, w]` or `[n, h, w, 3]`, `y_SPLIT` integers `[n]`.

    Each split is checked against the card when it is first used.

    Args:
        file: The `.npz`; its card is the `.json` of the same name beside it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._loaded: dict[str, tuple[np.ndarray, Tensor]] = {}

    @classmethod
    def at(cls, reference: str) -> ArrayImages:
        """The data set that a task names: a name of the embedded ones, a path, or `pkg://`.

        Raises:
            NotFound: if there is none, listing the embedded ones.
        """
        if "/" not in reference and not reference.endswith((".npz", ".json")):
            folder = resolve_path(EMBEDDED)
            assert folder is not None
            file = folder / f"{reference}.npz"
            if not file.is_file():
                names = ", ".join(sorted(found.stem for found in folder.glob("*.npz")))
                raise NotFound(f"no embedded data set is called {reference!r}", fix=f"there are: {names}")
            return cls(file)
        path = resolve_path(reference)
        if path is None or not path.with_suffix(".npz").is_file():
            raise NotFound(
                f"there is no image data at {reference!r}",
                fix="give NAME.npz with its card NAME.json beside it, or {hub: ID} for a data set of the hub",
            )
        return cls(path.with_suffix(".npz"))

    @cached_property
    def card(self) -> ImageCard:
        file = self.file.with_suffix(".json")
        try:
            return ImageCard.model_validate(read_json(file))
        except ValidationError as error:
            problems = error.errors(include_url=False)
            why = "\n".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems)
            raise CorruptFile("the card of a data set is malformed", file=file, why=why) from error

    def pixels(self, split: str, indices: Tensor) -> Tensor:
        images = torch.from_numpy(self._split(split)[0][indices.numpy()])
        if images.ndim == 3:
            images = images[..., None].expand(-1, -1, -1, 3)
        return images.permute(0, 3, 1, 2).float().div(255)

    def labels(self, split: str) -> Tensor:
        return self._split(split)[1]

    def fingerprint(self) -> str:
        hashes = {}
        for split, facts in self.card.splits.items():
            hashes[split] = facts.sha256 or split_sha256(*self._arrays(split))
        return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()

    def _split(self, split: str) -> tuple[np.ndarray, Tensor]:
        if split not in self._loaded:
            images, labels = self._arrays(split)
            self._check(split, images, labels)
            self._loaded[split] = (images, torch.from_numpy(labels.astype(np.int64)))
        return self._loaded[split]

    def _arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self.card.splits:
            raise TaskError(
                f"data set {self.card.name} has no split {split!r}",
                fix=f"it has: {', '.join(self.card.splits)}",
            )
        try:
            # numpy leaves files open that it cannot read, unless it is given an open one.
            with open(self.file, "rb") as file, np.load(file, allow_pickle=False) as content:
                return content[f"x_{split}"], content[f"y_{split}"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptFile(
                "the images cannot be read", file=self.file, why=str(error), fix="install or copy it again"
            ) from error

    def _check(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        facts = self.card.splits[split]
        good = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3))
        if not good or labels.ndim != 1 or labels.dtype.kind not in "iu":
            why = f"images are {images.dtype}{list(images.shape)}, labels {labels.dtype}{list(labels.shape)}"
        elif not len(images) == len(labels) == facts.n:
            why = f"{len(images)} images, {len(labels)} labels, {facts.n} on the card"
        elif labels.min() < 0 or labels.max() >= len(self.card.labels):
            why = f"labels go from {labels.min()} to {labels.max()}; there are {len(self.card.labels)}"
        elif facts.sha256 and split_sha256(images, labels) != facts.sha256:
            why = "the content has another hash than its card says"
        else:
            return
        raise CorruptFile(
            f"split {split!r} does not fit the card of data set {self.card.name}", file=self.file, why=why
        )


def split_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """The hash on a card: SHA-256 over the bytes of the images, then of the labels (int64, little-endian)."""
    digest = hashlib.sha256(np.ascontiguousarray(images, dtype=np.uint8).tobytes())
    digest.update(np.ascontiguousarray(labels).astype("<i8").tobytes())
    return digest.hexdigest()


def labels_and_templates(
    card: ImageCard, labels: tuple[str, ...] | None, templates: tuple[str, ...] | None, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and templates of a task: its own where given, else the card's.

    Raises:
        ConfigError: if there are no templates, one has no `{}`, or there are too few labels.
    """
    labels = labels or card.labels
    templates = templates or card.templates
    if not templates:
        raise ConfigError(
            f"task {name}: there are no prompt templates", fix="add `templates: ['a photo of a {}.']`"
        )
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(
                f"task {name}: template {template!r} must hold {{}} once", why="the label goes there"
            )
    if len(labels) < len(card.labels):
        raise ConfigError(f"task {name}: {len(labels)} labels for {len(card.labels)} classes")
    return labels, templates
