"""Find submodules by their names, and put others in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from fusionbench_core import ModelPool, TensorInfo, UnsupportedArchitecture

FEED_FORWARD = (
    "*.mlp",
    "*.ffn",
    "*.feed_forward",
    "*.DenseReluDense",
    "*.intermediate",
    "*[0-9].output.dense",
)
"""Names of the feed-forward modules of transformers: CLIP, ViT, Llama, GPT-2; T5; BERT, whose feed-forward
layers are two modules."""


def matching(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Submodules whose dotted names fit one of the shell patterns, none of them inside another.

    Raises:
        UnsupportedArchitecture: if there are none.
    """
    found: dict[str, nn.Module] = {}
    for name, child in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and any(fnmatchcase(name, pattern) for pattern in patterns):
            found[name] = child
    if not found:
        raise UnsupportedArchitecture(
            f"{type(module).__name__} has no module named {' or '.join(patterns)}",
            why=f"its modules are called {', '.join(_examples(module))}, …",
            fix="name the modules to replace in method.modules, as shell patterns",
        )
    return found


def tensors_inside(pool: ModelPool, patterns: Sequence[str]) -> dict[str, TensorInfo]:
    """Tensors in the pool's scope of modules whose dotted names fit one of the patterns, from headers."""
    checkpoint = pool.reference_model.checkpoint
    return {
        key: checkpoint.info(key)
        for key in checkpoint
        if pool.merges(key) and any(fnmatchcase(owner, each) for owner in _owners(key) for each in patterns)
    }


def live_bytes_inside(pool: ModelPool, patterns: Sequence[str]) -> int:
    """Bytes of all of these in a live model."""
    return 4 * sum(info.numel for info in tensors_inside(pool, patterns).values())


def input_widths(inside: Mapping[str, TensorInfo], patterns: Sequence[str]) -> dict[str, int]:
    """Module whose name fits a pattern -> size of its input, from the headers of the tensors inside.

    Headers do not tell which layer comes first: it is taken to be the one with the narrowest input.
    """
    widths: dict[str, int] = {}
    for key, info in inside.items():
        if len(info.shape) != 2 or not key.endswith(".weight"):
            continue
        module = next(each for each in _owners(key) if any(fnmatchcase(each, one) for one in patterns))
        bias = inside.get(f"{key.removesuffix('weight')}bias")
        rows, columns = info.shape
        # GPT-2's layers hold their weights transposed.
        width = rows if bias is not None and bias.shape == (columns,) else columns
        widths[module] = min(width, widths.get(module, width))
    return widths


def _owners(key: str) -> list[str]:
    parts = key.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def put_module(module: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """`module` with the submodule of that dotted name replaced; the new one itself for the empty name."""
    if not name:
        return new
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
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


def dotted(module: str, tensor: str) -> str:
    """Name of a module's tensor; the root module has no name."""
    return f"{module}.{tensor}" if module else tensor


def count(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _examples(module: nn.Module) -> list[str]:
    names = [name for name, _ in module.named_modules() if name]
    return sorted(names, key=lambda name: name.count("."))[:6]
