"""The models as modules, for methods that take no less."""

from __future__ import annotations

from torch import Tensor, nn


def module_of(state: dict[str, Tensor]) -> nn.Module:
    """A module whose state dict is a copy of `state`, with layers of the usual classes and tied weights."""
    root, made = nn.Module(), {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            root.register_buffer(name, tensor.clone())
            continue
        layer, kind = name.split(".")
        if not hasattr(root, layer):
            root.add_module(layer, _layer(layer, tensor, f"{layer}.bias" in state))
        owner = root.get_submodule(layer)
        shared = next((other for other in made if state[other] is tensor), None)
        made[name] = made[shared] if shared else nn.Parameter(tensor.clone())
        setattr(owner, kind, made[name])
    return root


def _layer(name: str, weight: Tensor, bias: bool) -> nn.Module:
    if name == "embed":
        return nn.Embedding(weight.shape[0], weight.shape[1])
    if weight.dim() == 4:
        height, width = weight.shape[2:]
        return nn.Conv2d(weight.shape[1], weight.shape[0], (height, width), bias=False)
    return nn.Linear(weight.shape[1], weight.shape[0], bias=bias) if weight.dim() == 2 else nn.Module()
