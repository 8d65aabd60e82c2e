"""Tiny random models, made on the spot: what the conformance kit checks sources and tasks with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core import write_safetensors

_TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}
_VISION: dict[str, Any] = {**_TOWER, "image_size": 32, "patch_size": 16}
_TEXT: dict[str, Any] = {
    **_TOWER,
    "vocab_size": 32,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 8],
    "depths": [1, 1],
    "layer_type": "basic",
}
_OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}


def vision_tower(width: int) -> nn.Module:
    """A CLIP vision tower of transformers whose embeddings have `width` dimensions."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**{**_VISION, "projection_dim": width})
    return _filled(lambda: CLIPVisionModelWithProjection(config))


def classifier(classes: int) -> nn.Module:
    """A ResNet of transformers: batch norm, so that there are statistics and counters."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(**{**_RESNET, "num_labels": classes})
    return _filled(lambda: ResNetForImageClassification(config))


def write_clip(directory: Path) -> None:
    """Write a full CLIP of transformers."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=8)
    _write(_filled(lambda: CLIPModel(config)), directory)


def write_classifier(directory: Path) -> None:
    """Write an image classifier of transformers."""
    _write(classifier(3), directory)


def write_open_clip(directory: Path) -> None:
    """Write an open_clip model with its config, as `local-dir:` reads it."""
    from open_clip.model import CLIP

    state = _filled(lambda: CLIP(**_OPEN_CLIP)).state_dict()
    write_safetensors(directory / "open_clip_model.safetensors", state)
    content = {"model_cfg": _OPEN_CLIP, "preprocess_cfg": {"size": [16, 16]}}
    (directory / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")


def loaded(name: str, directory: Path) -> Mapping[str, Tensor]:
    """What a class of transformers itself loads."""
    import transformers

    with _quiet():
        cls = getattr(transformers, name)
        return cls.from_pretrained(directory, dtype="auto", local_files_only=True).state_dict()


def loaded_by_open_clip(directory: Path) -> Mapping[str, Tensor]:
    """What open_clip itself loads."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        return open_clip.create_model(f"local-dir:{directory}").state_dict()


def _write(model: Any, directory: Path) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    write_safetensors(directory / "model.safetensors", model.state_dict())


def _filled(make: Any) -> nn.Module:
    """What `make` makes, in eval mode, always with the same weights; none of them zero or one."""
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = make()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator) / 4
                # Variances are positive.
                tensor.copy_(1 + drawn.abs() if name.endswith("running_var") else drawn)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without reports on the tower that is left out."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
