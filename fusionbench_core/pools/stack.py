"""A model made of layers of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf
from torch import nn

from fusionbench_core.checkpoints.stacked import Slice, StackedCheckpoint
from fusionbench_core.errors import IncompatibleModels, MissingCapability
from fusionbench_core.layers import layer_pattern
from fusionbench_core.pools.source import ModelSource
from fusionbench_core.pools.vocabulary import Vocabulary
from fusionbench_core.records import SourceRecord

CONFIG = "config.json"

_COUNTS = "num_hidden_layers n_layer n_layers num_layers num_decoder_layers decoder_layers encoder_layers"


class StackPart(BaseModel):
    """Layers of one model: `start` to `stop`, counted from 0, the last one not counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: InstanceOf[ModelSource]
    layers: tuple[int, int]


class LayerStack(ModelSource):
    """Layers of several models, one upon the other: what a reference with `slices` means.

    The artefact's config.json is that of the first model, with the number of layers, and lists of one
    entry a layer, as they are in the stack.
    """

    record: ClassVar[SourceRecord] = SourceRecord(
        name="layer_stack",
        target="fusionbench_core.pools.stack:LayerStack",
        summary="layers of several models, one upon the other",
    )

    slices: tuple[StackPart, ...] = Field(min_length=1, description="from the lowest layers up")
    layer_names: str | None = Field(default=None, description="how the layers' tensors are called")

    @cached_property
    def checkpoint(self) -> StackedCheckpoint:
        """The view of the weights."""
        opened = {model: model.open() for model in dict.fromkeys(part.model for part in self.slices)}
        slices = [Slice(opened[part.model], *part.layers) for part in self.slices]
        return StackedCheckpoint(slices, layer_pattern(self.layer_names))

    def open(self) -> StackedCheckpoint:
        self.changed_assets()
        return self.checkpoint

    def skeleton(self) -> nn.Module:
        raise MissingCapability(
            "a stack of layers cannot be run before it is written",
            model=self.path,
            why="the config of its models is one for another number of layers",
            fix="write it first, with method=passthrough, and name the result as a model",
        )

    def vocabulary(self) -> Vocabulary | None:
        return self.slices[0].model.vocabulary()

    def assets(self) -> Sequence[Path]:
        return self.slices[0].model.assets()

    def for_artefact(self, directory: Path) -> ModelSource:
        return self.slices[0].model.for_artefact(directory)

    def changed_assets(self) -> Mapping[str, str]:
        """config.json with the layers of the stack, where the models have one."""
        config = _config(self.slices[0].model)
        if config is None:
            return {}
        stack, layers = self.checkpoint.stack, self.checkpoint.layers_of_first
        place, key = _where_counted(config, stack, layers, self.path)
        section = _at(config, place)
        section[key] = self.checkpoint.layers
        for name, value in section.items():
            if isinstance(value, list) and len(value) == layers:
                section[name] = self._one_a_layer(name, place, value)
        return {CONFIG: json.dumps(config, indent=2) + "\n"}

    def _one_a_layer(self, name: str, place: tuple[str, ...], first: list[Any]) -> list[Any]:
        """A list of one entry a layer in the models' configs, such as kinds of attention, for the stack."""
        entries: list[Any] = []
        for part in self.slices:
            own = _at(_config(part.model) or {}, place).get(name, first)
            entries += own[slice(*part.layers)]
        return entries if len(entries) == self.checkpoint.layers else first


def _config(source: ModelSource) -> dict[str, Any] | None:
    file = next((asset for asset in source.assets() if asset.name == CONFIG), None)
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))


def _where_counted(
    config: dict[str, Any], stack: str, layers: int, location: str
) -> tuple[tuple[str, ...], str]:
    """Section and key that hold the number of layers of a stack."""
    sections = [(), *((name,) for name, value in config.items() if isinstance(value, dict))]
    found = [
        (place, key) for place in sections for key in _COUNTS.split() if _at(config, place).get(key) == layers
    ]
    if not found:
        raise IncompatibleModels(
            "config.json does not say how many layers there are",
            model=location,
            why=f"the weights hold {layers} of {stack}; none of {', '.join(_COUNTS.split())} is that number",
            fix="check that weights and config.json belong together",
        )
    words = [word for word in ("decoder", "encoder", "vision", "visual", "text", "language") if word in stack]
    return max(found, key=lambda each: sum(word in ".".join((*each[0], each[1])) for word in words))


def _at(config: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    for name in place:
        config = config.get(name, {})
    return config
