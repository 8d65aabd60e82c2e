"""Tiny random models, made on the spot: what the conformance kit checks the sources with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusionbench_core import write_safetensors

_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "tie_word_embeddings": True}
_LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "AutoModel": ("bert", _BERT),
    "AutoModelForCausalLM": ("llama", _LLAMA),
    "AutoModelForSeq2SeqLM": ("t5", _T5),
    "AutoModelForSequenceClassification": ("bert", _BERT),
}
"""Auto class -> type of model and its settings."""


def make(auto: str, **settings: Any) -> Any:
    """A tiny model of an auto class, always the same, in eval mode."""
    import transformers

    kind, sizes = _KINDS[auto]
    config = transformers.AutoConfig.for_model(kind, **{"vocab_size": 32, **sizes, **settings})
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, auto).from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh weights are mostly zeros and ones, which hide faults.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model.eval()


def write_model(auto: str, directory: Path) -> None:
    """Write a tiny model as transformers does, tied weights once."""
    model = make(auto)
    names: dict[int, str] = {}
    state, tied = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in names:
            tied[name] = names[id(tensor)]
        else:
            names[id(tensor)] = name
            state[name] = tensor
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    write_safetensors(directory / "model.safetensors", state, aliases=tied)


def write_adapter(directory: Path) -> None:
    """Write a LoRA adapter over the encoder in `base`, with two ranks and two alphas."""
    (directory / "base").mkdir()
    write_model("AutoModel", directory / "base")
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": str(directory / "base"),
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["query", "dense"],
        "rank_pattern": {"query": 4},
        "alpha_pattern": {"query": 5},
    }
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = torch.Generator().manual_seed(1)
    factors = {}
    for name, module in make("AutoModel").named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("query", "dense")):
            rank = 4 if name.endswith("query") else 2
            for letter, shape in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
                tensor = torch.randn(shape, generator=generator) / 4
                factors[f"base_model.model.{name}.lora_{letter}.weight"] = tensor
    write_safetensors(directory / "adapter_model.safetensors", factors)


def loaded(auto: str, directory: Path) -> Mapping[str, Tensor]:
    """What transformers itself loads."""
    return _load(auto, directory).state_dict()


def merged(directory: Path) -> Mapping[str, Tensor]:
    """What peft itself merges."""
    import peft

    base = _load("AutoModel", directory / "base")
    adapted: Any = peft.PeftModel.from_pretrained(base, str(directory))
    return adapted.merge_and_unload().state_dict()


def _load(auto: str, directory: Path) -> Any:
    import transformers

    with _without_progress_bars():
        return getattr(transformers, auto).from_pretrained(directory, dtype="auto", local_files_only=True)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
