"""Random models of Llama's shape, written to disk tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from fusionbench_core import TensorInfo
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.randomness import keyed_generator


@dataclass(frozen=True)
class Shape:
    """The numbers in a Llama's config.json."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in file order."""
        keys = self.hidden // self.heads * self.kv_heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (self.hidden,)
            yield f"{prefix}.mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield f"{prefix}.mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.post_attention_layernorm.weight", (self.hidden,)
            yield f"{prefix}.self_attn.k_proj.weight", (keys, self.hidden)
            yield f"{prefix}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield f"{prefix}.self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield f"{prefix}.self_attn.v_proj.weight", (keys, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def config(self, dtype: torch.dtype) -> dict[str, object]:
        """What transformers and its users read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": str(dtype).removeprefix("torch."),
        }


SIZES = {
    "0.07B": Shape(512, 12, 1408, 8, 2, 32_000),
    "0.3B": Shape(1024, 20, 2816, 16, 4, 32_000),
    "1.1B": Shape(2048, 22, 5632, 32, 4, 32_000),
    "3B": Shape(3072, 28, 8192, 24, 8, 128_256),
    "8B": Shape(4096, 32, 14336, 32, 8, 128_256),
}
"""Name -> shape; from 1.1B on those of TinyLlama and Llama 3."""


@dataclass(frozen=True)
class Models:
    """A base and fine-tuned models on disk."""

    base: Path
    experts: dict[str, Path]
    bytes_each: int
    parameters: int


def make_models(directory: Path, shape: Shape, count: int, dtype: torch.dtype) -> Models:
    """Write a base and `count` models that differ from it by a small random update."""
    names = ["base", *(f"expert{number}" for number in range(count))]
    layout = [(name, TensorInfo(size, dtype)) for name, size in shape.tensors()]
    writers = []
    for model in names:
        path = directory / model
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(shape.config(dtype), indent=1))
        writers.append(SafetensorsWriter(path, layout))
    for name, info in layout:
        base = torch.randn(info.shape, generator=keyed_generator(0, "base", name)).mul_(0.02)
        writers[0].write(name, 0, base.to(dtype).view(-1))
        for model, writer in zip(names[1:], writers[1:]):
            update = torch.randn(info.shape, generator=keyed_generator(0, model, name)).mul_(0.001)
            writer.write(name, 0, update.add_(base).to(dtype).view(-1))
    for writer in writers:
        writer.finish()
    return Models(
        directory / "base",
        {name: directory / name for name in names[1:]},
        sum(info.nbytes for _, info in layout),
        sum(info.numel for _, info in layout),
    )
