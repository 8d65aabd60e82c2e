"""Put SMILE layers in place of linear layers, when fusing and when a saved model is loaded."""

from __future__ import annotations

from torch import nn

from fb_mixing.smile.linear import SmileLinear
from fusionbench_core import BuildContext


def build_smile(context: BuildContext) -> nn.Module:
    """The pool's architecture with the layers named in `arguments["layers"]` replaced, all weights arbitrary.

    `layers` maps the dotted name of a layer to the arguments of its :class:`SmileLinear`.
    """
    module = context.skeleton()
    for name, shape in context.arguments["layers"].items():
        module = put_layer(module, name, SmileLinear(**shape))
    keep_forward(module)
    return module.requires_grad_(False).eval()


def put_layer(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """`module` with the submodule of that dotted name replaced; the layer itself for the empty name."""
    if not name:
        return layer
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
    return module


def keep_forward(module: nn.Module) -> None:
    """Keep PyTorch's transformer layers from their fused inference path.

    That path reads `linear1.weight` and `linear2.weight` and never calls the layers, so it would
    silently compute the base model.
    """
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoder):
            layer.use_nested_tensor = False
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
