"""Put routers and updates into a model, when fusing and when a saved model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fb_mixing.ensembling.data_adaptive import DataAdaptiveModel
from fb_mixing.ensembling.layers import EnsembledLinear, WeightEnsembling
from fb_mixing.ensembling.router import Router
from fb_mixing.modules import dotted, keep_forward, put_module
from fusionbench_core import BuildContext


def build_weight_ensembling(context: BuildContext) -> nn.Module:
    """The pool's architecture with routers and updates as :func:`upscale` puts them in, all weights zero."""
    return upscale(context.skeleton(), context.arguments)


def build_data_adaptive(context: BuildContext) -> nn.Module:
    """The pool's architecture as a :class:`DataAdaptiveModel` with these arguments, all weights arbitrary."""
    return DataAdaptiveModel(context.skeleton(), **context.arguments).requires_grad_(False).eval()


def upscale(module: nn.Module, arguments: Mapping[str, Any]) -> nn.Module:
    """Wrap modules into :class:`WeightEnsembling`, and replace their linear layers.

    Args:
        module: The base.
        arguments: `modules`: dotted name of a module -> dotted names in it of its linear layers -> arguments
            of :class:`EnsembledLinear`. `routers`: name of a module -> arguments of its router; one for all
            modules under the name "". `tasks`: number of tasks where routers look at a preference, or null.
    """
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    routers = {name: Router(**shape, dtype=dtype) for name, shape in arguments["routers"].items()}
    for name, layers in arguments["modules"].items():
        for inner, shape in layers.items():
            layer = EnsembledLinear(**shape, dtype=dtype)
            module = put_module(module, dotted(name, inner) if inner else name, layer)
        router = routers[""].twin() if "" in routers else routers[name]
        wrapped = WeightEnsembling(module.get_submodule(name), router, tasks=arguments["tasks"])
        module = put_module(module, name, wrapped)
    keep_forward(module)
    return module.requires_grad_(False).eval()
