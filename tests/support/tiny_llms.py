"""Small language models in transformers' format, the same wherever they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

_LLAMA = {
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "tie_word_embeddings": False,
}
_GPT2 = {"n_embd": 8, "n_layer": 4, "n_head": 2, "n_positions": 16, "tie_word_embeddings": True}
_SIZES: dict[str, dict[str, Any]] = {"llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA, "gpt2": _GPT2}

NAMES = ("base", "a", "b", "c")


def write_llm(directory: Path, seed: int, kind: str = "llama", **settings: Any) -> None:
    """Write a causal language model whose weights are drawn from a seed, tensor by tensor."""
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"vocab_size": 16, **special, **_SIZES[kind], **settings}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            own = sum(name.encode()) + 1000 * seed
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(own))
            parameter.copy_(drawn / 4)
    model.save_pretrained(directory)


def write_all(directory: Path) -> None:
    """Write a base and three models of its architecture, and a GPT-2 with tied embeddings."""
    for seed, name in enumerate(NAMES):
        write_llm(directory / name, seed)
    write_llm(directory / "gpt2", 9, "gpt2")


def probe(tensor: torch.Tensor) -> list[float]:
    """Some entries of a tensor, and the sum of all, to know it again by."""
    flat = tensor.double().flatten()
    some = flat[:: max(1, flat.numel() // 4)][:5]
    return [round(float(value), 7) for value in (*some, flat.sum())]
