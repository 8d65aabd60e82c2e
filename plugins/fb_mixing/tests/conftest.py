"""Tiny models of transformers, made on the spot."""

from __future__ import annotations

import pytest
import torch

_SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
SIZES = {
    "llama": {**_SMALL, "num_key_value_heads": 1},
    "mistral": {**_SMALL, "num_key_value_heads": 1, "sliding_window": 3, "tie_word_embeddings": True},
    "bert": _SMALL,
    "gpt2": {"n_embd": 16, "n_layer": 4, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 4, "num_heads": 2},
    "clip_vision_model": {**_SMALL, "image_size": 8, "patch_size": 4},
}
AUTO = {"bert": "AutoModel", "t5": "AutoModelForSeq2SeqLM", "clip_vision_model": "AutoModel"}


@pytest.fixture(scope="session")
def tiny():
    """`tiny(kind, seed=0, base=None)`: a tiny random model; with a base, one that is tuned from it."""
    transformers = pytest.importorskip("transformers")

    def make(kind: str, seed: int = 0, base: torch.nn.Module | None = None):
        words = {} if kind == "clip_vision_model" else {"vocab_size": 32}
        config = transformers.AutoConfig.for_model(kind, **words, **SIZES[kind])
        with torch.random.fork_rng(devices=[]):
            auto = AUTO.get(kind, "AutoModelForCausalLM")
            model = getattr(transformers, auto).from_config(config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        start = dict(base.named_parameters()) if base is not None else {}
        for name, parameter in model.named_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            if name in start:
                parameter.mul_(0.2).add_(start[name])
        return model

    return make


@pytest.fixture(scope="session")
def inputs():
    """`inputs(kind)`: keyword arguments of a model's forward."""

    def make(kind: str) -> dict[str, torch.Tensor]:
        if kind == "clip_vision_model":
            generator = torch.Generator().manual_seed(9)
            return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
        words = {"input_ids": torch.tensor([[5, 9, 2, 7, 1], [3, 8, 8, 2, 6]])}
        return {**words, "decoder_input_ids": torch.tensor([[1, 2], [4, 3]])} if kind == "t5" else words

    return make


@pytest.fixture
def computed():
    """`computed(model, inputs)`: the first of what a model gives."""

    def compute(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return model(**given)[0]

    return compute


@pytest.fixture
def written(tiny, tmp_path):
    """`written(kind, **seeds)`: directories of tiny models by name; the others come from the first."""

    def write(kind: str, dtype: torch.dtype = torch.float32, **seeds: int) -> dict[str, str]:
        base, paths = None, {}
        for name, seed in seeds.items():
            model = tiny(kind, seed, base)
            base = base or model
            paths[name] = str(tmp_path / name)
            model.to(dtype).save_pretrained(tmp_path / name)
            model.float()
        return paths

    return write
