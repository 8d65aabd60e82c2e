"""What models of transformers say of themselves, without asking for transformers where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from fusionbench_core import ModelPool


def plain_config(pool: ModelPool) -> Any:
    """A fresh copy of the config that describes the pool's architecture to transformers, or None.

    For models on disk it is the config.json beside them; for models in memory their `config`.
    """
    live, source = pool.reference_model.live, pool.reference_model.source
    if live is not None:
        return _copy(getattr(live, "config", None))
    file = next((each for each in (source.assets() if source else ()) if each.name == "config.json"), None)
    return _read(file) if file is not None else None


def fits(module: nn.Module, config: Any) -> bool:
    """Whether transformers, given only `config`, makes a module of the same class, names and shapes."""
    import torch

    try:
        with torch.device("meta"):
            made = type(module)(config)  # pyright: ignore[reportCallIssue]
    except (TypeError, ValueError, AttributeError, KeyError):
        return False
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return shapes == {name: tensor.shape for name, tensor in made.state_dict().items()}


def _read(file: Path) -> Any:
    described = json.loads(file.read_text(encoding="utf-8"))
    # Others have files of that name too; and code beside a model is not run here.
    if "model_type" not in described or "auto_map" in described:
        return None
    try:
        from transformers import AutoConfig
    except ImportError:
        return None
    return AutoConfig.from_pretrained(file.parent, local_files_only=True)


def _copy(config: Any) -> Any:
    if not hasattr(config, "to_json_string"):
        return None
    return type(config).from_dict(config.to_dict())
