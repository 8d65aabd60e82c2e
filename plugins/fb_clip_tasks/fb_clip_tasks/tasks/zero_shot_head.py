"""CLIP's zero-shot head: one direction a class, made of the class's prompts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from fb_clip_tasks.tasks.text import PromptTable, Text
from fusionbench_core import FusionError, cache_dir, open_checkpoint, write_safetensors

_FORMAT = 1


@dataclass(frozen=True)
class ZeroShotHead:
    """Class directions and the temperature.

    Attributes:
        weight: `(classes, dim)`, rows of length one.
        scale: Factor of the cosines.
    """

    weight: Tensor
    scale: float


def head_key(text: Text, labels: tuple[str, ...], templates: tuple[str, ...]) -> str:
    """Hash of everything that decides a head."""
    facts = json.dumps([_FORMAT, text.identity(), labels, templates])
    return hashlib.sha256(facts.encode()).hexdigest()


def zero_shot_head(
    text: Text, labels: tuple[str, ...], templates: tuple[str, ...], key: str | None = None
) -> ZeroShotHead:
    r"""The head for a task's classes, from the user's cache if it was made before.

    With $t_{cj}$ the normalised embedding of template $j$ filled with class $c$:
    $w_c = \bar t_c / \lVert \bar t_c \rVert$, $\bar t_c = \frac1J \sum_j t_{cj}$.

    Args:
        text: Where embeddings come from.
        labels: Names of the classes.
        templates: Prompts with `{}` for the name.
        key: The head's `head_key`, where it is known already.
    """
    scale = text.scale()
    if isinstance(text, PromptTable):
        # Looking up a table is faster than looking up the cache.
        return ZeroShotHead(_build(text, labels, templates), scale)
    file = _cached(key or head_key(text, labels, templates))
    weight = _read(file, len(labels)) if file else None
    if weight is None:
        weight = _build(text, labels, templates)
        if file:
            _keep(file, weight)
    return ZeroShotHead(weight, scale)


def _build(text: Text, labels: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    # Not str.format: a template may hold other braces.
    prompts = [template.replace("{}", label) for label in labels for template in templates]
    embeddings = text.embed(prompts).view(len(labels), len(templates), -1)
    return F.normalize(embeddings.mean(1), dim=1)


def _cached(key: str) -> Path | None:
    try:
        return cache_dir("heads") / f"{key[:40]}.safetensors"
    except OSError:
        return None


def _read(file: Path, classes: int) -> Tensor | None:
    """The head in a file; None if there is none, or it is damaged."""
    try:
        weight = open_checkpoint(file).tensor("weight").clone()
    except (FusionError, OSError, KeyError):
        return None
    return weight if weight.ndim == 2 and len(weight) == classes else None


def _keep(file: Path, weight: Tensor) -> None:
    try:
        write_safetensors(file, {"weight": weight.contiguous()})
    except (FusionError, OSError):
        # A full or read-only cache costs time, not the result.
        return
