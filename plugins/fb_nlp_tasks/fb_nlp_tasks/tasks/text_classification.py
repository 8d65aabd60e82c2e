"""Classify texts: accuracy and cross-entropy, zero-shot by label prompts or with an expert's head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, PrivateAttr, model_validator
from torch import Tensor, nn

from fb_nlp_tasks import plugin
from fb_nlp_tasks.sources import examples
from fb_nlp_tasks.sources.text_models import TextClassifier, TextEncoder
from fb_nlp_tasks.tasks.declared import DeclaredTexts
from fb_nlp_tasks.tasks.expert_head import expert_classifier, head_hash
from fb_nlp_tasks.tasks.heads import OwnClassifier, PromptClassifier
from fb_nlp_tasks.tasks.hf_datasets import read_datasets
from fb_nlp_tasks.tasks.prompt_head import prompt_head, prompt_key, shared_encoder
from fb_nlp_tasks.tasks.texts import TextData, read_jsonl
from fb_nlp_tasks.tasks.tokenised import (
    TokenisedSplit,
    load_tokenizer,
    pad_id,
    tokenise,
    tokenizer_directory,
    tokenizer_hash,
)
from fusionbench_core import Batch, ClassificationTask, ConfigError, TaskCard, TaskError, implements

MINILM = "pkg://fb_nlp_tasks/embedded/minilm"
VERSION = 1
"""Changes when the same parameters and data would be measured otherwise."""
_MAX_LENGTH = 128
_RECORD = plugin.TASKS[0]


@implements(_RECORD)
class TextClassification(DeclaredTexts, ClassificationTask):
    """Single-label classification of texts, scored by accuracy and mean cross-entropy (nats).

    Three heads: `prompts` compares texts with label prompts, embedded once by the pre-trained encoder
    (mean pooling, cosine times `scale`, as CLIP does with images); `expert` takes pooling and classifier
    of a saved sequence classifier; `model` takes the logits that the model gives by itself.
    """

    head: Literal["prompts", "expert", "model"] = Field(
        default="prompts", description="what turns the trunk into a classifier"
    )
    prompts: tuple[str | tuple[str, ...], ...] | None = Field(
        default=None, description="one prompt a label, or several to average; default: the data set's card"
    )
    encoder: str = Field(default=MINILM, description="the pre-trained encoder that embeds the prompts")
    head_from: str | None = Field(
        default=None, description="the sequence classifier whose head is used (head: expert)"
    )
    tokenizer: str | None = Field(
        default=None,
        description="model directory or hub id of the tokenizer; default: that of encoder or head_from",
    )
    labels: tuple[str, ...] | None = Field(
        default=None, description="names of the classes; default: the data set's card"
    )
    max_length: PositiveInt | None = Field(
        default=None, description=f"tokens a text is cut to; default: the data set's card, else {_MAX_LENGTH}"
    )
    scale: float = Field(default=20.0, gt=0, description="multiplies the cosine of text and prompt")
    label_column: str = Field(
        default="label", description="column of the labels, in CSV, Parquet and hub data sets"
    )

    _tokenised: dict[str, TokenisedSplit] = PrivateAttr(default_factory=dict)

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        return {"dataset": "moviesent", "head": "model", "tokenizer": MINILM, "max_length": 16}

    @classmethod
    def example_trunk(cls) -> nn.Module:
        """A classifier of two classes that knows the tokens of the embedded encoder."""
        vocabulary = shared_encoder(MINILM).described.config().vocab_size
        return examples.make("AutoModelForSequenceClassification", vocab_size=vocabulary, num_labels=2)

    @model_validator(mode="after")
    def _check_head(self) -> TextClassification:
        if (self.head == "expert") != (self.head_from is not None):
            raise ValueError("`head: expert` and `head_from` belong together")
        if self.head != "prompts" and self.prompts is not None:
            raise ValueError(f"`prompts` are of no use with `head: {self.head}`")
        if self.head == "model" and self.tokenizer is None:
            raise ValueError("`head: model` needs `tokenizer`")
        return self

    @cached_property
    def data(self) -> TextData:
        """The texts; read on first use."""
        if self.lines:
            return read_jsonl(self.lines, self.labels)
        return read_datasets(
            self.dataset,
            self.file,
            text_column=self.text_column,
            label_column=self.label_column,
            splits=self.their_splits,
            subset=self.subset,
            revision=self.revision,
            labels=self.labels,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return self.labels or self.data.labels

    @property
    def length(self) -> int:
        """Tokens a text is cut to."""
        return self.max_length or self.data.card.get("max_length") or _MAX_LENGTH

    @property
    def tokenizer_path(self) -> Path:
        """The directory of the tokenizer."""
        return tokenizer_directory(self.tokenizer or self.head_from or self.encoder)

    def card(self) -> TaskCard:
        facts = self.data.card
        licence = ": ".join(str(facts[key]) for key in ("licence", "licence_note") if facts.get(key))
        return TaskCard(
            title=facts.get("title", self.name),
            version=int(facts.get("version", VERSION)),
            source=" ".join(str(facts[key]) for key in ("source", "source_version") if key in facts)
            or self.dataset,
            licence=licence or "unknown",
            splits={split: len(part) for split, part in self.data.splits.items()},
            labels=self.class_names,
            description=facts.get("description", ""),
        )

    def attach(self, trunk: nn.Module) -> nn.Module:
        """`trunk` with the head: its forward takes `input_ids` and `attention_mask`, both `(n, length)`.

        Raises:
            IncompatibleModels: if an expert's head does not fit on the trunk.
            ConfigError: if there are no prompts, or not one a label.
        """
        if self.head == "model":
            return OwnClassifier(trunk)
        if self.expert is not None:
            return expert_classifier(self.expert, trunk, pad_id(load_tokenizer(self.tokenizer_path)))
        return PromptClassifier(trunk, self.head_matrix, self.scale)

    def batches(
        self,
        split: Literal["train", "validation", "test"],
        *,
        labelled: bool,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        """Batches of `input_ids` and `attention_mask`, padded to their longest text.

        Without a seed texts come sorted by length, which saves half of the padding; `indices` say where
        they stand in the split. With a seed, a limit takes a random part.

        Raises:
            TaskError: if the data set has no such split.
        """
        tokenised = self._split(split)
        return tokenised.batches(labelled=labelled, limit=limit, seed=seed, batch_size=batch_size)

    def fingerprint(self) -> str:
        facts = {
            "task": _RECORD.name,
            "version": VERSION,
            "data": {split: part.sha256 for split, part in sorted(self.data.splits.items())},
            "labels": self.class_names,
            "max_length": self.length,
            "tokenizer": tokenizer_hash(self.tokenizer_path),
            "head": self.head_identity,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def head_matrix(self) -> Tensor:
        """The embedded label prompts, `(classes, dim)`."""
        return prompt_head(self.encoder_source, self.label_prompts, self.length)

    @cached_property
    def encoder_source(self) -> TextEncoder:
        """The source of the pre-trained encoder."""
        return shared_encoder(self.encoder)

    @property
    def label_prompts(self) -> tuple[Any, ...]:
        """One prompt, or one tuple of prompts, a label.

        Raises:
            ConfigError: if neither task nor card has any, or not one a label.
        """
        prompts = tuple(self.prompts or self.data.card.get("prompts") or ())
        if not prompts or (self.class_names and len(prompts) != len(self.class_names)):
            raise ConfigError(
                f"task {self.name}: {len(prompts)} prompts for {len(self.class_names)} labels",
                fix="give `prompts`, one a label in their order, or another `head`: expert, model",
            )
        return prompts

    @cached_property
    def expert(self) -> TextClassifier | None:
        """The classifier whose head is used, if one is."""
        return None if self.head_from is None else TextClassifier(path=self.head_from)

    @cached_property
    def head_identity(self) -> str:
        """Hash of what decides the head."""
        if self.head == "model":
            return "model"
        if self.expert is not None:
            return f"expert:{head_hash(self.expert)}"
        return f"prompts:{prompt_key(self.encoder_source, self.label_prompts, self.length)}:{self.scale}"

    def _split(self, split: str) -> TokenisedSplit:
        if split not in self._tokenised:
            part = self.data.splits.get(split)
            if part is None or not len(part):
                raise TaskError(
                    f"task {self.name} has no split {split!r}",
                    why=f"its data has {', '.join(self.data.splits) or 'none'}",
                )
            tokenizer = load_tokenizer(self.tokenizer_path)
            self._tokenised[split] = tokenise(tokenizer, part.texts, part.labels, self.length)
        return self._tokenised[split]
