"""Stack layers anew, when fusing and when a saved model is loaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fb_mixing.modules import put_module
from fusionbench_core import BuildContext


def build_stacked(context: BuildContext) -> nn.Module:
    """The pool's architecture with some lists of layers stacked anew, all weights arbitrary.

    `arguments["stacks"]` maps the dotted name of a list to the numbers of the layers it is made of.
    """
    return stack_layers(context.skeleton(), context.arguments["stacks"])


def stack_layers(module: nn.Module, stacks: Mapping[str, Sequence[int]]) -> nn.Module:
    """`module` with lists of layers replaced by copies of these of their layers; its config follows."""
    told: set[int] = set()
    for name, layers in stacks.items():
        old = list(module.get_submodule(name).children())
        new = (_renumbered(copy.deepcopy(old[index]), place) for place, index in enumerate(layers))
        module = put_module(module, name, nn.ModuleList(new))
        config = getattr(module.get_submodule(name.rpartition(".")[0]), "config", None)
        if config is not None and id(config) not in told:
            told.add(id(config))
            deepen(config, len(old), layers)
    for owner in module.modules():
        if isinstance(owner, nn.TransformerEncoder):
            owner.num_layers = len(owner.layers)
    return module.requires_grad_(False).eval()


def deepen(config: Any, depth: int, layers: Sequence[int]) -> None:
    """Have a config of transformers tell the new depth, and the new order in lists with one entry a layer."""
    if not hasattr(config, "to_dict"):
        return
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == depth:
            setattr(config, key, [value[index] for index in layers])
    for key in ("num_hidden_layers", "num_decoder_layers"):
        if getattr(config, key, None) == depth:
            setattr(config, key, len(layers))


def _renumbered(layer: nn.Module, place: int) -> nn.Module:
    # Attention finds its keys and values in the cache by this number.
    for part in layer.modules():
        if isinstance(getattr(part, "layer_idx", None), int):
            part.layer_idx = place  # pyright: ignore[reportArgumentType]
    return layer
