"""Adapters: a change of the base, kept apart from it, in the layout that PEFT loads."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core.checkpoints import StateDictCheckpoint, open_checkpoint
from fusionbench_core.checkpoints.writer import write_safetensors
from fusionbench_core.errors import CorruptFile
from fusionbench_core.files import write_atomically

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<letter>[AB])(?:\.weight)?\Z")


@dataclass(frozen=True)
class Adapter:
    """What a model adds to its base: $B A$ to some weights, and some tensors in place of the base's.

    Attributes:
        factors: Module -> $A$ `(r, in)` and $B$ `(out, r)`. The module is a linear layer, a `Conv1D` of
            transformers or an embedding; $B A$ is transposed for the last two.
        whole: Name of a tensor -> its values.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    whole: Mapping[str, Tensor]

    @torch.no_grad()
    def add_to(self, module: nn.Module) -> None:
        """Change the base's module in place.

        Raises:
            KeyError, AttributeError: if the module has no such layer or tensor.
        """
        state = module.state_dict()
        for name, tensor in self.whole.items():
            state[name].copy_(tensor)
        for name, (a, b) in self.factors.items():
            weight = state[f"{name}.weight"]
            wide = torch.promote_types(weight.dtype, a.dtype)
            product = b.to(wide) @ a.to(wide)
            weight.copy_(
                weight.to(wide) + (product.T if is_transposed(module.get_submodule(name)) else product)
            )


def is_transposed(layer: nn.Module | None) -> bool:
    """Whether a layer's weight is `(in, out)`: that of embeddings, and of transformers' `Conv1D`."""
    return isinstance(layer, nn.Embedding) or type(layer).__name__ == "Conv1D"


def write_adapter(
    directory: Path, adapter: Adapter, module: nn.Module, base: str, dtype: torch.dtype | None = None
) -> str:
    """Write both files; gives the fingerprint of the tensors.

    Args:
        directory: Where.
        adapter: What.
        module: A module of the base's architecture; weights do not matter.
        base: What `adapter_config.json` calls the base: a path or a hub id.
        dtype: Of the tensors written; default their own.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in _named(adapter, module).items()}
    write_safetensors(directory / WEIGHTS, tensors)
    config = {**_config(adapter, module), "base_model_name_or_path": base}
    write_atomically(directory / CONFIG, json.dumps(config, indent=2) + "\n")
    return StateDictCheckpoint(tensors).fingerprint()


def read_adapter(directory: Path) -> Adapter:
    """What :func:`write_adapter` wrote.

    Raises:
        InputError: if it is missing or malformed.
    """
    weights = open_checkpoint(directory / WEIGHTS)
    whole, found = {}, {}
    for name in weights:
        inner = name.removeprefix(_PREFIX)
        match = _FACTOR.match(inner)
        if match:
            found.setdefault(match["module"], {})[match["letter"]] = weights.tensor(name)
        else:
            whole[inner.replace(".base_layer.", ".")] = weights.tensor(name)
    for module, pair in found.items():
        if set(pair) != {"A", "B"}:
            raise CorruptFile(f"factor A or B of {module} is missing", file=directory / WEIGHTS)
    return Adapter({module: (pair["A"], pair["B"]) for module, pair in found.items()}, whole)


def _named(adapter: Adapter, module: nn.Module) -> dict[str, Tensor]:
    """The tensors under PEFT's names."""
    tensors = {}
    for name, factors in adapter.factors.items():
        embedding = isinstance(module.get_submodule(name), nn.Embedding)
        for letter, tensor in zip("AB", factors):
            ending = f"lora_embedding_{letter}" if embedding else f"lora_{letter}.weight"
            tensors[f"{_PREFIX}{name}.{ending}"] = tensor
    for name, tensor in adapter.whole.items():
        layer, _, own = name.rpartition(".")
        inner = f"{layer}.base_layer.{own}" if layer in adapter.factors else name
        tensors[f"{_PREFIX}{inner}"] = tensor
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _config(adapter: Adapter, module: nn.Module) -> dict[str, Any]:
    """PEFT's settings under which `B A` is added as it is: every alpha equals its rank."""
    ranks = {name: len(a) for name, (a, _) in adapter.factors.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    others = {f"^{re.escape(name)}": each for name, each in ranks.items() if each != rank}
    layers = [module.get_submodule(name) for name in ranks]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": _targets(ranks, [name for name, _ in module.named_modules()]),
        "bias": "all" if any(name.endswith(".bias") for name in adapter.whole) else "none",
        "fan_in_fan_out": any(type(layer).__name__ == "Conv1D" for layer in layers),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "inference_mode": True,
    }


def _targets(names: Collection[str], modules: Collection[str]) -> list[str] | str:
    """The names; a pattern where PEFT, which takes a name for the end of others too, would find more."""
    wrong = any(other not in names and other.endswith(f".{name}") for name in names for other in modules)
    return "|".join(map(re.escape, names)) if wrong else sorted(names)
