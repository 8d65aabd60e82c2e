"""Put SMILE layers in place of linear layers, when fusing and when a saved model is loaded."""

from __future__ import annotations

from torch import nn

from fb_mixing.modules import keep_forward, put_module
from fb_mixing.smile.linear import SmileLinear
from fusionbench_core import BuildContext


def build_smile(context: BuildContext) -> nn.Module:
    """The pool's architecture with the layers named in `arguments["layers"]` replaced, all weights arbitrary.

    `layers` maps the dotted name of a layer to the arguments of its :class:`SmileLinear`.
    """
    module = context.skeleton()
    for name, shape in context.arguments["layers"].items():
        module = put_module(module, name, SmileLinear(**shape))
    keep_forward(module)
    return module.requires_grad_(False).eval()
