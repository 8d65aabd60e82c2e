"""Put sparse mixtures in place of modules, when a saved model is loaded."""

from __future__ import annotations

import copy

from torch import nn

from fb_mixing.modules import put_module
from fb_mixing.sparse.mixture import SparseMixture
from fusionbench_core import BuildContext


def build_sparse_mixtures(context: BuildContext) -> nn.Module:
    """The pool's architecture with mixtures in place of some modules, all weights arbitrary.

    `arguments["modules"]` maps the dotted name of a module to the size of its input; `experts` and
    `top_k` are those of every :class:`SparseMixture`.
    """
    module, arguments = context.skeleton(), context.arguments
    for name, in_features in arguments["modules"].items():
        dense = module.get_submodule(name)
        experts = [copy.deepcopy(dense) for _ in range(arguments["experts"])]
        module = put_module(module, name, SparseMixture(experts, in_features, top_k=arguments["top_k"]))
    return module.requires_grad_(False).eval()
