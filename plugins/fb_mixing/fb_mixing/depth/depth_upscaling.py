"""Depth up-scaling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from fb_mixing.architectures import fits, plain_config
from fb_mixing.depth.builder import deepen, stack_layers
from fb_mixing.depth.records import DEPTH_UPSCALING
from fb_mixing.modules import count
from fusionbench_core import (
    Checkpoint,
    ConfigError,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    UnsupportedArchitecture,
    count_layers,
    implements,
)


@implements(DEPTH_UPSCALING)
class DepthUpscaling(ModelMethod):
    r"""Stack the layers of one model anew, some of them twice, into a deeper model.

    With layers $f_1, \dots, f_n$ and $m = \mathrm{round}(\mu n)$ of them left out of each copy, the deeper
    model has $2(n - m)$ layers:

    $$f_1, \dots, f_{n-m}, \; f_{m+1}, \dots, f_n$$

    or those that `layers` lists, in that order. Everything but the layers is the model's own.

    Notes:
        The paper has n = 32 and m = 8, a fraction of 0.25, and trains the result further, which it needs.
        FusionBench takes the list of layers only, as numbers or as Python to evaluate.
        A model with several lists of layers, such as an encoder's and a decoder's, gets all of them deeper;
        those that the pool's scope leaves out stay as they are.
        A model of transformers that its config describes becomes a plain checkpoint with more
        `num_hidden_layers`, which loads with `from_pretrained`; lists in the config with one entry a layer
        are stacked alike. Any other becomes a module with a registered builder.
        Memory: the deeper model, in fp32.

    Reference:
        Kim et al., SOLAR 10.7B: Scaling Large Language Models with Simple yet Effective Depth Up-Scaling,
        NAACL 2024, arXiv:2312.15166.
    """

    drop: float = Field(default=0.25, ge=0, lt=1, description="fraction of the layers left out of each copy")
    layers: tuple[NonNegativeInt, ...] | None = Field(
        default=None, min_length=1, description="numbers of the layers to stack, from 0; wins over drop"
    )

    def memory(self, pool: ModelPool) -> int:
        """The model, and the layers that are copied, stack by stack: these need not be of one depth."""
        name = next(iter(pool))
        checkpoint = pool.checkpoint(name)
        sizes = {key: checkpoint.info(key).numel for key in checkpoint}
        depths = count_layers(key for key in sizes if pool.merges(key))
        copied = sum(sizes[key] * self._length(depth) / depth for key, depth in depths.items())
        return round(pool.live_bytes(name) * (1 + copied / sum(sizes.values())))

    def fuse(self, job: FusionJob) -> Fused:
        (name,) = job.pool
        module = job.pool.module(name)
        depths = stacks_of(module, job.pool)
        stacks = {stack: self._layers(stack, depth) for stack, depth in depths.items()}
        details: dict[str, Any] = {"stacks": stacks, "base_parameters": count(module)}
        module = stack_layers(module, stacks)
        details["parameters"] = count(module)
        config = plain_config(job.pool)
        depth, layers = next(iter(depths.values())), next(iter(stacks.values()))
        deepen(config, depth, layers)
        if config is None or not fits(module, config):
            arguments = {"stacks": stacks}
            return Fused.of_module(module, builder="mixing/stacked", arguments=arguments, details=details)
        return Fused.of_checkpoint(
            module,
            assets={"config.json": config.to_json_string()},
            tensors=_stored(module, job.pool.checkpoint(name), stacks),
            details=details,
        )

    def _layers(self, stack: str, depth: int) -> list[int]:
        if self.layers is None:
            kept = self._length(depth) // 2
            return [*range(kept), *range(depth - kept, depth)]
        if max(self.layers) >= depth:
            raise ConfigError(
                f"layer {max(self.layers)} is asked for, and {stack} has {depth}",
                config="method.layers",
                fix=f"count from 0 to {depth - 1}, or leave {stack}.* out of the scope of the pool",
            )
        return list(self.layers)

    def _length(self, depth: int) -> int:
        """Number of layers that so many become."""
        if self.layers is not None:
            return len(self.layers)
        # A half rounds down: of two layers, both stay.
        return 2 * (depth - round(self.drop * depth))


def stacks_of(module: nn.Module, pool: ModelPool) -> dict[str, int]:
    """Dotted names of the lists of layers in the pool's scope, none inside another, and their depths.

    Raises:
        UnsupportedArchitecture: if there are none.
    """
    stacks: dict[str, int] = {}
    for name, child in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in stacks)
        tensors = [f"{name}.{key}" for key in child.state_dict()] if isinstance(child, nn.ModuleList) else []
        if tensors and not inside and any(pool.merges(tensor) for tensor in tensors):
            stacks[name] = len(child)  # pyright: ignore[reportArgumentType]
    if not stacks:
        raise UnsupportedArchitecture(
            f"{type(module).__name__} has no list of layers in scope",
            fix="choose a model made of a torch.nn.ModuleList, or widen modelpool.scope",
        )
    return stacks


def _stored(
    module: nn.Module, checkpoint: Checkpoint, stacks: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The tensors of the deeper model in the dtypes of the checkpoint, tied ones once."""
    taken: set[str] = set()
    stored = {}
    for key in module.state_dict():
        origin = _origin(key, stacks)
        if origin in checkpoint.aliases:
            continue
        tensor = checkpoint.tensor(origin)
        # What shares its memory would be taken for tied.
        stored[key] = tensor.clone() if origin in taken else tensor
        taken.add(origin)
    return stored


def _origin(key: str, stacks: Mapping[str, Sequence[int]]) -> str:
    """Name of the tensor that became `key`."""
    for stack, layers in stacks.items():
        if found := re.match(rf"{re.escape(stack)}\.(\d+)\.", key):
            return f"{stack}.{layers[int(found[1])]}.{key[found.end() :]}"
    return key
