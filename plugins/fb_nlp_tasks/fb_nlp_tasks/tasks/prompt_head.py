"""Label prompts embedded by a pre-trained encoder: computed once, kept on disk by content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fb_nlp_tasks.sources.text_models import TextEncoder
from fb_nlp_tasks.tasks.heads import embed, token_states
from fb_nlp_tasks.tasks.tokenised import load_tokenizer, tokenise, tokenizer_hash
from fusionbench_core import Checkpoint, cache_dir

RECIPE = 1
"""Changes when the same inputs would give another head."""

Prompts = Sequence[str | Sequence[str]]


def prompt_head(encoder: TextEncoder, prompts: Prompts, max_length: int, cache: Path | None = None) -> Tensor:
    """The frozen classifier `(classes, dim)`, fp32: one unit-length embedding a class.

    Args:
        encoder: The *pre-trained* encoder.
        prompts: One prompt a class, or several, whose embeddings are averaged.
        max_length: Tokens a prompt is cut to.
        cache: Directory of cached heads; default `heads` in the user's cache. A directory that cannot
            be written is no error.
    """
    name = f"{prompt_key(encoder, prompts, max_length)}.safetensors"
    try:
        file = (cache or cache_dir("heads")) / name
    except OSError:
        return _compute(encoder, prompts, max_length)
    head = _read(file)
    if head is None:
        head = _compute(encoder, prompts, max_length)
        with suppress(OSError):
            _write(file, head)
    return head


def prompt_key(encoder: TextEncoder, prompts: Prompts, max_length: int) -> str:
    """Hash of everything that decides a head: encoder, tokenizer, prompts, length, recipe."""
    facts = {
        "recipe": RECIPE,
        "encoder": _content(encoder.open()),
        "tokenizer": tokenizer_hash(encoder.directory),
        "prompts": [[prompt] if isinstance(prompt, str) else list(prompt) for prompt in prompts],
        "max_length": max_length,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=4)
def shared_encoder(reference: str) -> TextEncoder:
    """The source of an encoder; one for all tasks, as each opens and hashes its weights."""
    return TextEncoder(path=reference)


@lru_cache(maxsize=4)
def _content(checkpoint: Checkpoint) -> str:
    return checkpoint.fingerprint()


@torch.no_grad()
def _compute(encoder: TextEncoder, prompts: Prompts, max_length: int) -> Tensor:
    model = encoder.build(encoder.open())
    tokenizer = load_tokenizer(encoder.directory)
    rows = []
    for prompt in prompts:
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        split = tokenise(tokenizer, texts, [0] * len(texts), max_length)
        batch = next(iter(split.batches(labelled=False, limit=None, seed=None, batch_size=len(texts))))
        vectors = embed(token_states(model(**batch.inputs)), batch.inputs["attention_mask"])
        rows.append(F.normalize(vectors.mean(0), dim=0))
    return torch.stack(rows)


def _read(file: Path) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)["head"]
    except (OSError, SafetensorError, KeyError):
        return None


def _write(file: Path, head: Tensor) -> None:
    """Write under a name of its own first, so that another process sees all of it or nothing."""
    from safetensors.torch import save

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as temporary:
        temporary.write(save({"head": head.contiguous()}))
    os.replace(temporary.name, file)
