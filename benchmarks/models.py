"""Random models of Llama's or CLIP's shape, written to disk tensor by tensor."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from fusionbench_core import TensorInfo
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.randomness import keyed_generator


class Shape(ABC):
    """What a config.json describes.

    Attributes:
        source: Name of the model source that opens it.
        dtype: What the weights are stored in.
        models: How many fine-tuned ones are merged, if nothing else is said.
    """

    source: ClassVar[str]
    dtype: ClassVar[torch.dtype]
    models: ClassVar[int]

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in file order."""

    @abstractmethod
    def config(self) -> dict[str, object]:
        """What transformers and its users read."""


@dataclass(frozen=True)
class Llama(Shape):
    """The numbers in a Llama's config.json."""

    source, dtype, models = "causal_lm", torch.bfloat16, 3

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
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

    def config(self) -> dict[str, object]:
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
            "torch_dtype": str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True)
class ClipVision(Shape):
    """The numbers in the config.json of a CLIP vision model."""

    source, dtype, models = "clip_vision", torch.float32, 8

    hidden: int
    layers: int
    intermediate: int
    heads: int
    patch: int
    image: int = 224

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "vision_model.embeddings.class_embedding", (self.hidden,)
        yield "vision_model.embeddings.patch_embedding.weight", (self.hidden, 3, self.patch, self.patch)
        positions = (self.image // self.patch) ** 2 + 1
        yield "vision_model.embeddings.position_embedding.weight", (positions, self.hidden)
        norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]
        square = (self.hidden, self.hidden)
        for layer in range(self.layers):
            prefix = f"vision_model.encoder.layers.{layer}"
            norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
            matrices = {f"self_attn.{which}_proj": square for which in ("k", "v", "q", "out")}
            matrices |= {
                "mlp.fc1": (self.intermediate, self.hidden),
                "mlp.fc2": (self.hidden, self.intermediate),
            }
            for name, shape in matrices.items():
                yield f"{prefix}.{name}.weight", shape
                yield f"{prefix}.{name}.bias", shape[:1]
        for name in norms:
            yield f"{name}.weight", (self.hidden,)
            yield f"{name}.bias", (self.hidden,)

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["CLIPVisionModel"],
            "model_type": "clip_vision_model",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "patch_size": self.patch,
            "image_size": self.image,
            "torch_dtype": str(self.dtype).removeprefix("torch."),
        }


SIZES: dict[str, Shape] = {
    "0.07B": Llama(512, 12, 1408, 8, 2, 32_000),
    "0.3B": Llama(1024, 20, 2816, 16, 4, 32_000),
    "1.1B": Llama(2048, 22, 5632, 32, 4, 32_000),
    "3B": Llama(3072, 28, 8192, 24, 8, 128_256),
    "8B": Llama(4096, 32, 14336, 32, 8, 128_256),
    "clip-b32": ClipVision(768, 12, 3072, 12, 32),
}
"""Name -> shape; from 1.1B on those of TinyLlama and Llama 3, and CLIP's ViT-B/32."""


@dataclass(frozen=True)
class Models:
    """A base and fine-tuned models on disk, opened by `source`."""

    source: str
    base: Path
    experts: dict[str, Path]
    bytes_each: int
    parameters: int


def make_models(directory: Path, shape: Shape, count: int) -> Models:
    """Write a base and `count` models that differ from it by a small random update."""
    names = ["base", *(f"expert{number}" for number in range(count))]
    layout = [(name, TensorInfo(size, shape.dtype)) for name, size in shape.tensors()]
    writers = []
    for model in names:
        path = directory / model
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(shape.config(), indent=1))
        writers.append(SafetensorsWriter(path, layout))
    for name, info in layout:
        base = torch.randn(info.shape, generator=keyed_generator(0, "base", name)).mul_(0.02)
        writers[0].write(name, 0, base.to(shape.dtype).view(-1))
        for model, writer in zip(names[1:], writers[1:]):
            update = torch.randn(info.shape, generator=keyed_generator(0, model, name)).mul_(0.001)
            writer.write(name, 0, update.add_(base).to(shape.dtype).view(-1))
    for writer in writers:
        writer.finish()
    return Models(
        shape.source,
        directory / "base",
        {name: directory / name for name in names[1:]},
        sum(info.nbytes for _, info in layout),
        sum(info.numel for _, info in layout),
    )
