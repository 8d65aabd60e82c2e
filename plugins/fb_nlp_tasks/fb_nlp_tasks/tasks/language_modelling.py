"""Predict the next token of running text: cross-entropy and perplexity."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.nn import functional as F

from fb_nlp_tasks import plugin
from fb_nlp_tasks.sources import examples
from fb_nlp_tasks.tasks.blocks import BlockSplit, blocks
from fb_nlp_tasks.tasks.declared import DeclaredTexts
from fb_nlp_tasks.tasks.heads import NextTokens
from fb_nlp_tasks.tasks.hf_datasets import read_texts
from fb_nlp_tasks.tasks.text_classification import MINILM
from fb_nlp_tasks.tasks.texts import read_card, read_running
from fb_nlp_tasks.tasks.tokenised import load_tokenizer, tokenizer_directory, tokenizer_hash
from fusionbench_core import (
    Batch,
    EvalContext,
    Metric,
    Task,
    TaskCard,
    TaskError,
    TaskResult,
    frozen,
    implements,
)

VERSION = 1
"""Changes when the same parameters and data would be measured otherwise."""
_RECORD = plugin.TASKS[1]


@implements(_RECORD)
class LanguageModelling(DeclaredTexts, Task):
    r"""Next-token prediction on running text, for causal language models.

    All texts of a split stand behind one another, each ended by the tokenizer's end of text, and are cut into
    blocks of L tokens $w_1, \dots, w_L$, which are the samples. Of N blocks

    $$\mathrm{loss} = -\frac{1}{N (L - 1)} \sum_{\mathrm{blocks}} \sum_{i=2}^{L}
      \log p(w_i \mid w_1, \dots, w_{i-1}), \qquad \mathrm{perplexity} = e^{\mathrm{loss}}$$

    in nats a token. Perplexities of models with different tokenizers cannot be compared.
    """

    dataset: str = Field(
        description="an embedded data set, a .txt, .jsonl[.gz], .csv, .json or .parquet file, or a hub id"
    )
    tokenizer: str = Field(description="model directory or hub id of the models' tokenizer")
    length: int = Field(default=128, ge=2, description="L: tokens of a block")

    _blocks: dict[str, BlockSplit] = PrivateAttr(default_factory=dict)

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        return {"dataset": "moviesent", "tokenizer": MINILM, "length": 16}

    @classmethod
    def example_trunk(cls) -> nn.Module:
        """A language model that knows the tokens of the embedded encoder."""
        vocabulary = len(load_tokenizer(tokenizer_directory(MINILM)))
        return examples.make("AutoModelForCausalLM", vocab_size=vocabulary)

    @cached_property
    def texts(self) -> Mapping[str, list[str]]:
        """Split -> its texts; read on first use."""
        if self.lines:
            return read_running(self.lines, self.text_column)
        return read_texts(
            self.dataset,
            self.file,
            text_column=self.text_column,
            splits=self.their_splits,
            subset=self.subset,
            revision=self.revision,
        )

    @property
    def tokenizer_path(self) -> Path:
        """The directory of the tokenizer."""
        return tokenizer_directory(self.tokenizer)

    def card(self) -> TaskCard:
        facts = read_card(self.lines) if self.lines else {}
        return TaskCard(
            title=facts.get("title", self.name),
            version=VERSION,
            source=facts.get("source", self.dataset),
            licence=facts.get("licence", "unknown"),
            splits={split: len(self._split(split)) for split in self.texts},
            description=f"next tokens in blocks of {self.length}",
        )

    def metrics(self) -> Mapping[str, Metric]:
        found = super().metrics()
        perplexity = Metric(higher_is_better=False, low=1.0, high=math.inf, perfect=1.0, interval="normal")
        return {**found, "loss": replace(found["loss"], interval="normal"), "perplexity": perplexity}

    def attach(self, trunk: nn.Module) -> nn.Module:
        """A module that takes `input_ids` `(n, length)` and gives logits `(n, length - 1, vocabulary)`."""
        return NextTokens(trunk)

    def batches(
        self,
        split: Literal["train", "validation", "test"],
        *,
        labelled: bool,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        """Batches of `input_ids`, `(n, length)`; labels are the tokens that follow, `(n, length - 1)`.

        Raises:
            TaskError: if the split has no text, or not enough for one block.
        """
        found = self._split(split)
        if not len(found):
            raise TaskError(
                f"task {self.name} has no block of {self.length} tokens in split {split!r}",
                why=f"its data has {', '.join(self.texts) or 'none'}",
                fix="give more text, or a smaller `length`",
            )
        return found.batches(labelled=labelled, limit=limit, seed=seed, batch_size=batch_size)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats of logits `(n, length - 1, vocabulary)` and labels `(n, length - 1)`."""
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    def evaluate(self, model: nn.Module, context: EvalContext) -> TaskResult:
        """Loss in nats a token, and perplexity, each with the interval of the mean over blocks.

        Raises:
            TaskError: if the split is empty, or the logits hold NaN or Inf.
        """
        started = time.perf_counter()
        with frozen([model]), torch.no_grad():
            losses = self._losses(model, context)
        loss, interval = normal_interval(losses)
        return TaskResult(
            task=self.name,
            metrics={"loss": loss, "perplexity": _perplexity(loss)},
            intervals={"loss": interval, "perplexity": (_perplexity(interval[0]), _perplexity(interval[1]))},
            n=len(losses),
            split=context.split,
            seconds=time.perf_counter() - started,
            fingerprint=self.fingerprint(),
            samples_sha256=hashlib.sha256(json.dumps(losses).encode()).hexdigest(),
            samples={"index": list(range(len(losses))), "loss": losses},
        )

    def fingerprint(self) -> str:
        facts = {
            "task": _RECORD.name,
            "version": VERSION,
            "texts": hashlib.sha256(json.dumps(self.texts, sort_keys=True).encode()).hexdigest(),
            "length": self.length,
            "tokenizer": tokenizer_hash(self.tokenizer_path),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _losses(self, model: nn.Module, context: EvalContext) -> list[float]:
        """Mean cross-entropy of each block."""
        total = min(len(self._split(context.split)), context.limit or math.inf)
        losses: list[float] = []
        for batch in self.batches(
            context.split, labelled=True, limit=context.limit, batch_size=context.batch_size
        ):
            batch = batch.to(context.device)
            assert batch.labels is not None
            # One block at a time: logits of a large vocabulary take more memory than anything else.
            each = [
                F.cross_entropy(logits.float(), labels)
                for logits, labels in zip(model(**batch.inputs), batch.labels)
            ]
            losses += torch.stack(each).tolist()
            if not all(map(math.isfinite, losses[-len(batch) :])):
                raise TaskError(
                    f"task {self.name}: the model's loss is NaN or Inf",
                    why="the fused weights are probably far too large",
                    fix="try a smaller scaling factor",
                )
            context.on_progress(len(losses), int(total))
        return losses

    def _split(self, split: str) -> BlockSplit:
        if split not in self._blocks:
            tokenizer = load_tokenizer(self.tokenizer_path)
            self._blocks[split] = blocks(tokenizer, self.texts.get(split, []), self.length)
        return self._blocks[split]


def normal_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    r"""The mean of n values, and $\bar x \pm 1.96\,s / \sqrt n$, 95 % by the normal approximation.

    Of one value nothing is known of the spread: the interval is a point.
    """
    mean = statistics.fmean(values)
    half = 1.959963984540054 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, (mean - half, mean + half)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))
