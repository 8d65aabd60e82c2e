"""Where the embeddings of class prompts come from: a table, or a text tower."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from fb_clip_tasks.sources.clip import TOKENIZER, Clip
from fb_clip_tasks.sources.files import first_line, present
from fb_clip_tasks.sources.open_clip import OpenClip
from fusionbench_core import (
    CorruptFile,
    MissingCapability,
    NotFound,
    RenamedCheckpoint,
    TaskError,
    open_checkpoint,
    resolve_path,
)

EMBEDDED = "pkg://fb_clip_tasks/embedded/text"
_CHUNK = 256


class Text(BaseModel):
    """A source of prompt embeddings, of the width of the trunk's image embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """L2-normalised embeddings `(n, dim)`, float32."""

    @abstractmethod
    def scale(self) -> float:
        """What cosines are multiplied with: exp of the learned `logit_scale`."""

    @abstractmethod
    def identity(self) -> str:
        """Hash of the content that embeddings depend on."""


class PromptTable(Text):
    """Embeddings made beforehand: `prompts.json`, `prompts.safetensors` (embeddings), and
    `projection.safetensors` (logit_scale), all in one directory.
    """

    kind: Literal["table"] = "table"
    path: str = Field(default=EMBEDDED, description="directory of the table")

    def embed(self, prompts: Sequence[str]) -> Tensor:
        rows, table = self._content
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if unknown:
            shown = "\n".join(repr(prompt) for prompt in unknown[:4])
            raise TaskError(
                f"{len(unknown)} of {len(set(prompts))} prompts are not in the prompt table",
                table=self.path,
                why=f"it holds the prompts of the embedded tasks only, and no text tower; unknown:\n{shown}",
                fix="use the card's own labels and templates, or give the text tower of the trunk's CLIP:\n"
                "text: openai/clip-vit-base-patch32, or text: {kind: open_clip, model: …, path: …}",
            )
        return F.normalize(table[[rows[prompt] for prompt in prompts]], dim=1)

    def scale(self) -> float:
        file = self._directory / "projection.safetensors"
        return _scale(open_checkpoint(file), file)

    def identity(self) -> str:
        digest = hashlib.sha256()
        for name in ("prompts.json", "prompts.safetensors", "projection.safetensors"):
            digest.update((self._directory / name).read_bytes())
        return f"table {digest.hexdigest()}"

    @property
    def _directory(self) -> Path:
        path = resolve_path(self.path)
        if path is None:
            raise NotFound(f"there is no prompt table at {self.path!r}")
        return path

    @cached_property
    def _content(self) -> tuple[dict[str, int], Tensor]:
        file = self._directory / "prompts.json"
        try:
            prompts = json.loads(file.read_text(encoding="utf-8"))
            rows = {prompt: row for row, prompt in enumerate(prompts)}
        except (OSError, ValueError, TypeError) as error:
            raise CorruptFile("the prompts cannot be read", file=file, why=str(error)) from error
        checkpoint = open_checkpoint(file.with_suffix(".safetensors"))
        if "embeddings" not in checkpoint or checkpoint.info("embeddings").shape[0] != len(rows):
            raise CorruptFile("the table does not fit its prompts", file=file.with_suffix(".safetensors"))
        return rows, checkpoint.tensor("embeddings").float().clone()


class ClipText(Text):
    """The text tower and tokenizer of a full transformers CLIP."""

    kind: Literal["clip"] = "clip"
    path: str = Field(description="directory or hub id of a full CLIP model with its tokenizer")
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        tokenizer = self._tokenizer()
        model: Any = self._source.build(self._source.open())
        length = model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(prompts), _CHUNK):
            tokens = tokenizer(
                list(prompts[start : start + _CHUNK]),
                padding=True,
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )
            parts.append(model.get_text_features(**tokens).pooler_output)
        return F.normalize(torch.cat(parts), dim=1)

    def scale(self) -> float:
        return _scale(self._source.open(), self._source.directory)

    def identity(self) -> str:
        inner = self._source.open()
        needed = ("text_model.", "text_projection.", "logit_scale")
        text = RenamedCheckpoint(inner, lambda name: name if name.startswith(needed) else None)
        digest = hashlib.sha256(text.fingerprint().encode())
        for file in present(self._source.directory, TOKENIZER):
            digest.update(file.read_bytes())
        return f"clip {digest.hexdigest()}"

    @cached_property
    def _source(self) -> Clip:
        return Clip.model_validate({"path": self.path, "revision": self.revision})

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self._source.directory, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise NotFound(
                "there is no usable tokenizer beside the text tower",
                model=self._source.directory,
                why=first_line(error),
                fix="save the tokenizer or processor into the same directory",
            ) from error


class OpenClipText(Text):
    """The text tower of an open_clip model, with open_clip's own tokenizer."""

    kind: Literal["open_clip"] = "open_clip"
    path: str = Field(description="checkpoint file or directory")
    model: str | None = Field(
        default=None, description="name of the architecture; default: the config beside it"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        tokenizer = self._tokenizer()
        model: Any = self._source.build(self._source.open())
        parts = [
            model.encode_text(tokenizer(list(prompts[start : start + _CHUNK])))
            for start in range(0, len(prompts), _CHUNK)
        ]
        return F.normalize(torch.cat(parts), dim=1)

    def scale(self) -> float:
        return _scale(self._source.open(), self._source.directory)

    def identity(self) -> str:
        inner = self._source.open()
        text = RenamedCheckpoint(inner, lambda name: None if name.startswith("visual.") else name)
        described = json.dumps(self._source.description["model_cfg"].get("text_cfg"), sort_keys=True)
        return f"open_clip {text.fingerprint()} {hashlib.sha256(described.encode()).hexdigest()}"

    @cached_property
    def _source(self) -> OpenClip:
        given = {"path": self.path, "model": self.model, "revision": self.revision}
        return OpenClip.model_validate(given)

    def _tokenizer(self) -> Any:
        from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

        settings = self._source.description["model_cfg"].get("text_cfg", {})
        length = settings.get("context_length", 77)
        name = settings.get("hf_tokenizer_name")
        if not name:
            return SimpleTokenizer(context_length=length, **settings.get("tokenizer_kwargs", {}))
        beside = present(self._source.directory, ("tokenizer.json", "tokenizer_config.json"))
        try:
            return HFTokenizer(
                str(self._source.directory) if beside else name,
                context_length=length,
                **settings.get("tokenizer_kwargs", {}),
            )
        except (OSError, ValueError) as error:
            raise MissingCapability(
                f"the tokenizer {name!r} of this open_clip model cannot be had",
                why=first_line(error),
                fix="save its tokenizer.json beside the checkpoint",
            ) from error


def _scale(checkpoint: Any, where: object) -> float:
    if "logit_scale" not in checkpoint or checkpoint.info("logit_scale").numel != 1:
        raise CorruptFile("there is no logit_scale", file=where)
    return checkpoint.tensor("logit_scale").double().exp().item()


def _from_shorthand(value: Any) -> Any:
    """`embedded` is the prompt table; any other string is a full CLIP; a mapping without `kind` too."""
    if value == "embedded":
        return {"kind": "table"}
    if isinstance(value, str):
        return {"kind": "clip", "path": value}
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "clip", **value}
    return value


TextReference = Annotated[
    Annotated[PromptTable | ClipText | OpenClipText, Field(discriminator="kind")],
    BeforeValidator(_from_shorthand),
]
