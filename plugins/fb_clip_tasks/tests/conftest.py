"""Tiny real models, made on the spot from configs and saved as their libraries save them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["a", "picture", "of", "photo", "the", "cat", "dog", "owl", ".", "big"]
OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _save(model, directory: Path, **options) -> Path:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(directory, **options)
    finally:
        if shown:
            logging.enable_progress_bar()
    return directory


@pytest.fixture(scope="session")
def save():
    """`model.save_pretrained` without its progress bar."""
    return _save


def _clip_config():
    from transformers import CLIPConfig

    text = {**TOWER, "vocab_size": 64, "projection_dim": 16, "max_position_embeddings": 24}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**TOWER, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)


def _tokenizer(directory: Path) -> None:
    from transformers import CLIPTokenizer

    letters = sorted({letter for word in WORDS for letter in word})
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(directory)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory) -> Path:
    """A full CLIP with tokenizer and processor."""
    from transformers import CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIPModel(_clip_config()).eval()
        # Fresh weights are so small that all embeddings look alike.
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    directory = _save(model, tmp_path_factory.mktemp("clip"))
    _tokenizer(directory)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 32, "width": 32}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def _classifier(kind: str):
    import transformers as t

    size = {"num_labels": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        if kind == "vit":
            config = t.ViTConfig(**TOWER, image_size=32, patch_size=8, **size)
            return t.ViTForImageClassification(config).eval()
        if kind == "resnet":
            config = t.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **size
            )
            model = t.ResNetForImageClassification(config)
            model.train()(torch.randn(4, 3, 32, 32))
            return model.eval()
        if kind == "convnext":
            config = t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **size)
            return t.ConvNextForImageClassification(config).eval()
        config = t.Dinov2Config(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            use_swiglu_ffn=True,
            **size,
        )
        return t.Dinov2ForImageClassification(config).eval()


@pytest.fixture(scope="session")
def classifier():
    """Kind -> a tiny live classifier of three classes."""
    return _classifier


@pytest.fixture(scope="session")
def open_clip_dir(tmp_path_factory) -> Path:
    """A tiny open_clip model with its config, as open_clip's `local-dir:` reads it."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    directory = tmp_path_factory.mktemp("open_clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CLIP(**OPEN_CLIP)
        state = {key: (value + 0.1 * torch.randn_like(value)) for key, value in model.state_dict().items()}
    save_file(state, directory / "open_clip_model.safetensors")
    (directory / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": {"size": [32, 32]}})
    )
    return directory


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data set of three classes in the embedded benchmark's format: colour images, one class a colour."""
    import numpy as np
    from fb_clip_tasks.tasks.images import split_sha256

    generator = np.random.default_rng(5)
    arrays, splits = {}, {}
    for split, n in (("train", 9), ("validation", 6), ("test", 12)):
        labels = np.arange(n) % 3
        images = generator.integers(0, 60, (n, 32, 32, 3), dtype=np.uint8)
        images[np.arange(n), :, :, labels] += 150
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
        splits[split] = {"n": n, "sha256": split_sha256(images, labels)}
    card = {
        "name": "toy",
        "version": 1,
        "title": "Three colours",
        "labels": ["cat", "dog", "owl"],
        "templates": ["a photo of the {}.", "a big picture of a {} ."],
        "image_size": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.6, 0.7],
        "source": "made here",
        "licence": "CC0-1.0",
        "splits": splits,
    }
    file = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez_compressed(file, **arrays)
    file.with_suffix(".json").write_text(json.dumps(card))
    return file
