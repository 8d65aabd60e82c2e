"""Tiny models and texts, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

SIZES = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "llama": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "mixtral": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "num_local_experts": 3,
    },
}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "good",
    "bad",
    "fine",
    "awful",
    "film",
    "book",
    "a",
    "the",
    "very",
]


def make_tiny(kind: str, auto: str, seed: int = 0, **settings):
    """A tiny random model of a kind, under an auto class; no global randomness is used up."""
    config = transformers.AutoConfig.for_model(kind, vocab_size=64, **SIZES[kind], **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, auto).from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="session")
def tiny():
    """`tiny(kind, auto, seed=0, **settings)`: a tiny random model; see `make_tiny`."""
    return make_tiny


@pytest.fixture(scope="session")
def with_tokenizer():
    """`with_tokenizer(model, directory)`: save both; see `save_with_tokenizer`."""
    return save_with_tokenizer


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of the test's own."""
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT encoder with a word-level tokenizer."""
    return save_with_tokenizer(make_tiny("bert", "AutoModel"), tmp_path_factory.mktemp("encoder"))


def save_with_tokenizer(model, directory: Path) -> Path:
    """Save a model, and a tokenizer over WORDS beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(directory)
    return directory


@pytest.fixture
def tiny_texts(tmp_path: Path) -> Path:
    """Sixteen labelled texts a split, in a .jsonl file with a card."""
    lines = []
    for split in ("train", "validation", "test"):
        for number in range(16):
            words = ["very"] * (number % 5) + [WORDS[4 + number % 4], WORDS[8 + number % 2]]
            lines.append({"split": split, "text": " ".join(words), "label": number % 2})
    file = tmp_path / "films.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = {
        "title": "Films",
        "labels": ["good", "bad"],
        "prompts": ["a good film", "a bad film"],
        "max_length": 8,
    }
    (tmp_path / "films.json").write_text(json.dumps({**card, "licence": "CC0-1.0"}))
    return file
