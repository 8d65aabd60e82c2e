"""Texts as token ids, made once, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fb_nlp_tasks.sources.hub import locate
from fusionbench_core import Batch, NotFound

_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")


@lru_cache(maxsize=8)
def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model directory.

    Raises:
        NotFound: if there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFound(
            f"no tokenizer in {directory}",
            why=(str(error).strip() or type(error).__name__).splitlines()[0],
            fix="give `tokenizer`: a model directory that holds tokenizer.json",
        ) from error


def tokenizer_directory(reference: str) -> Path:
    """Where the tokenizer of a reference lies; a hub id is downloaded."""
    return locate(reference, weights=False)


def tokenizer_hash(directory: Path) -> str:
    """Hash of the tokenizer's files."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in directory.glob(pattern)}):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class TokenisedSplit:
    """A split as token ids.

    Attributes:
        ids: One list of token ids a text, truncated.
        labels: `(n,)`.
        pad: Token id that fills up a batch; masked, so any will do.
    """

    ids: Sequence[Sequence[int]]
    labels: torch.Tensor
    pad: int

    def batches(
        self, *, labelled: bool, limit: int | None, seed: int | None, batch_size: int
    ) -> Iterator[Batch]:
        """Batches, padded to their longest text.

        Without a seed, the first `limit` texts, sorted by length to save padding; with a seed, `limit`
        texts in random order.
        """
        if seed is None:
            chosen = range(min(limit or len(self.ids), len(self.ids)))
            order = sorted(chosen, key=lambda position: (len(self.ids[position]), position))
        else:
            shuffled = torch.randperm(len(self.ids), generator=torch.Generator().manual_seed(seed))
            order = shuffled[: limit or len(self.ids)].tolist()
        for start in range(0, len(order), batch_size):
            yield self._batch(order[start : start + batch_size], labelled)

    def _batch(self, positions: list[int], labelled: bool) -> Batch:
        width = max(len(self.ids[position]) for position in positions)
        tokens = torch.full((len(positions), width), self.pad, dtype=torch.long)
        mask = torch.zeros((len(positions), width), dtype=torch.long)
        for row, position in enumerate(positions):
            ids = self.ids[position]
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        indices = torch.tensor(positions)
        inputs = {"input_ids": tokens, "attention_mask": mask}
        return Batch(inputs, self.labels[indices] if labelled else None, indices)


def tokenise(tokenizer: Any, texts: Sequence[str], labels: Sequence[int], max_length: int) -> TokenisedSplit:
    """Tokenise texts, at most `max_length` tokens each, special tokens included."""
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return TokenisedSplit(ids, torch.tensor(list(labels), dtype=torch.long), pad_id(tokenizer))


def pad_id(tokenizer: Any) -> int:
    """The token id that fills up a batch."""
    return next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
