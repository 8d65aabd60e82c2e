"""Take experts away, when a saved model is loaded."""

from __future__ import annotations

from torch import nn

from fb_mixing.pruning.routed import RoutedExperts
from fb_mixing.pruning.skipping import make_skipping
from fusionbench_core import BuildContext


def build_pruned_experts(context: BuildContext) -> nn.Module:
    """The pool's architecture with fewer experts, all weights arbitrary.

    `arguments["experts"]` maps the dotted name of a mixture to the number of its experts;
    `arguments["skipping"]` says whether the mixtures skip some of them.
    """
    module, arguments = context.skeleton(), context.arguments
    for name, experts in arguments["experts"].items():
        mixture = RoutedExperts(name, module.get_submodule(name))
        mixture.keep(range(experts))
        if arguments["skipping"]:
            make_skipping(mixture.block)
    return module.requires_grad_(False).eval()
