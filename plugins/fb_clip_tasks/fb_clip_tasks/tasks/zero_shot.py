"""Zero-shot classification of images: the evaluation of the classical CLIP merging benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fb_clip_tasks import plugin
from fb_clip_tasks.sources import examples
from fb_clip_tasks.tasks.image_task import ImageTask
from fb_clip_tasks.tasks.images import labels_and_templates
from fb_clip_tasks.tasks.preprocessing import resized, size_of
from fb_clip_tasks.tasks.text import PromptTable, TextReference
from fb_clip_tasks.tasks.zero_shot_head import ZeroShotHead, head_key, zero_shot_head
from fusionbench_core import TaskError, implements

_RECORD = next(record for record in plugin.TASKS if record.name == "zero_shot_image_classification")


@implements(_RECORD)
class ZeroShotImageClassification(ImageTask):
    r"""Each image gets the class whose prompts lie nearest.

    With the image embedding $e$, class directions $w_c$ of length one and the temperature $s$ that CLIP
    learned: $\mathrm{logit}_c = e^s \langle e / \lVert e \rVert, w_c \rangle$. The head never changes, so
    one trunk serves all tasks.

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
        arXiv:2103.00020.
    """

    located: ClassVar[tuple[str, ...]] = ("dataset", "text")

    text: TextReference = Field(
        default=PromptTable.model_validate({}),
        description="where prompt embeddings come from: embedded, a full CLIP (path or hub id), "
        "or {kind: open_clip, model: …, path: …}; it must belong to the trunk",
    )
    labels: tuple[str, ...] | None = Field(
        default=None, description="class names in prompts; default: the card's"
    )
    templates: tuple[str, ...] | None = Field(
        default=None, description="prompts with {} for the class name; default: the card's"
    )

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        return {"dataset": "digits"}

    @classmethod
    def example_trunk(cls) -> nn.Module:
        """A vision tower as wide as the prompt table."""
        table = PromptTable.model_validate({}).embed(["a scan of the handwritten digit zero."])
        return examples.vision_tower(table.shape[1])

    @cached_property
    def head(self) -> ZeroShotHead:
        """The class directions, made or looked up on first use."""
        return zero_shot_head(self.text, *self._prompts, self._head_key)

    def attach(self, trunk: nn.Module) -> nn.Module:
        return ZeroShotClassifier(trunk, self.head, self.name)

    def head_fingerprint(self) -> str:
        return self._head_key

    @cached_property
    def _head_key(self) -> str:
        return head_key(self.text, *self._prompts)

    @property
    def _prompts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return labels_and_templates(self.images.card, self.labels, self.templates, self.name)


class ZeroShotClassifier(nn.Module):
    """A vision trunk with a frozen zero-shot head.

    Args:
        trunk: Gives image embeddings: a transformers model with `image_embeds`, a full CLIP of
            transformers or open_clip, or a function of pixels that gives a tensor.
        head: Class directions; a buffer that is not stored.
        task: Name for messages.
    """

    head: Tensor

    def __init__(self, trunk: nn.Module, head: ZeroShotHead, task: str) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("head", head.weight, persistent=False)
        self.scale = head.scale
        self._task = task
        self._size = size_of(trunk)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits `(n, classes)` of images `(n, 3, height, width)`.

        Raises:
            TaskError: if the trunk gives no embeddings, or of another width than the prompts'.
        """
        if self._size is not None:
            pixel_values = resized(pixel_values, self._size)
        embeddings = self._embeddings(pixel_values)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.head.shape[1]:
            raise TaskError(
                f"task {self._task}: image embeddings of shape {list(embeddings.shape)} cannot be compared "
                f"with prompts of width {self.head.shape[1]}",
                why="trunk and text tower must come from one CLIP model",
                fix="set the task's `text` to the CLIP that the models were fine-tuned from;\n"
                "for towers saved without a projection, set `projection` of source clip_vision to it",
            )
        return self.scale * F.normalize(embeddings.float(), dim=1) @ self.head.T

    def _embeddings(self, pixels: Tensor) -> Tensor:
        trunk: Any = self.trunk
        if callable(getattr(trunk, "encode_image", None)):
            return trunk.encode_image(pixels)
        if callable(getattr(trunk, "get_image_features", None)):
            return trunk.get_image_features(pixel_values=pixels).pooler_output
        output = trunk(pixels)
        found = output if isinstance(output, torch.Tensor) else getattr(output, "image_embeds", None)
        if found is None:
            raise TaskError(
                f"task {self._task}: a {type(trunk).__name__} gives no image embeddings",
                fix="use source clip_vision or open_clip; task image_classification is for heads",
            )
        return found
