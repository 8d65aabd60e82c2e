"""Make modules without drawing random weights that are overwritten at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

# transformers swaps functions of torch.nn.init while it makes a model and puts them back afterwards; two
# threads that do so at once may leave the wrong ones in place.
_MAKING = threading.RLock()


def on_meta(make: Callable[[], Any]) -> Any:
    """What `make` makes on the meta device: names and shapes, no memory."""
    with _MAKING, torch.device("meta"):
        return make().eval()


def blank(make: Callable[[], Any]) -> nn.Module:
    """A transformers model in eval mode with arbitrary weights and right computed buffers.

    A ViT-L/14 takes 0.1 s; drawing its first weights would take 14 s.
    """
    model = on_meta(make)
    with _MAKING, own_generator(), torch.no_grad():
        model.to_empty(device="cpu")
        for module in model.modules():
            module.__dict__.pop("_is_hf_initialized", None)
        for tensor in model.state_dict(keep_vars=True).values():
            tensor._is_hf_initialized = True
        # With every stored tensor marked as done, this fills only the buffers that are not stored.
        model.initialize_weights()
    return model.eval()


def blank_parameters(make: Callable[[], nn.Module]) -> nn.Module:
    """Like :func:`blank` for any library: parameters have arbitrary values, buffers their right ones.

    While `make` runs, its parameters lie on the meta device, where filling them costs nothing.
    """
    owner = threading.get_ident()
    moved: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if threading.get_ident() != owner or parameter is None or parameter.is_meta:
            return parameter
        if id(parameter) not in moved:
            twin = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
            moved[id(parameter)] = (parameter, twin)
        return moved[id(parameter)][1]

    hook = register_module_parameter_registration_hook(to_meta)  # pyright: ignore[reportArgumentType]
    try:
        with own_generator():
            model = make()
    finally:
        hook.remove()
    real: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                empty = torch.empty_like(parameter, device="cpu")
                real.setdefault(id(parameter), nn.Parameter(empty, requires_grad=parameter.requires_grad))
                module._parameters[name] = real[id(parameter)]
    return model.eval()


@contextmanager
def own_generator() -> Iterator[None]:
    """Random numbers drawn inside do not advance the global CPU generator."""
    with torch.random.fork_rng(devices=[]):
        yield
