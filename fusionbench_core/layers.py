"""Which layer of a network a tensor belongs to, by its name alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|resblocks|block|encoder\.layer)\.(?P<layer>\d+)\.")
_NUMBER = "{layer}"
_BEFORE = re.compile(r"embed|(?:^|[._])(?:wte|wpe|shared|cls_token|class_token|mask_token)(?:[._]|\Z)|patch")

Place = Literal["before", "layers", "after"]
"""Where a tensor lies in a network: before its layers, in one of them, or after them."""


def layer_pattern(text: str | None) -> re.Pattern[str]:
    """The expression that finds the layer's number in a tensor's name.

    Args:
        text: The part of the names around the number, e.g. `decoder.stages.{layer}.`; None for what is
            common: the number after `layers`, `h`, `blocks`, `resblocks`, ….

    Raises:
        ValueError: if the text does not hold `{layer}` once.
    """
    if text is None:
        return _LAYER
    before, *after = text.split(_NUMBER)
    if len(after) != 1:
        raise ValueError(f"{text!r} must hold {_NUMBER} once, e.g. decoder.layers.{_NUMBER}.")
    end = re.escape(after[0]) or r"(?:\.|\Z)"
    return re.compile(rf"(?:^|(?<=\.)){re.escape(before)}(?P<layer>\d+){end}")


def layer_of(name: str, pattern: re.Pattern[str] = _LAYER) -> int | None:
    """Index of the layer in a tensor's name."""
    found = pattern.search(name)
    return int(found["layer"]) if found else None


def stack_of(name: str, pattern: re.Pattern[str] = _LAYER) -> str | None:
    """What comes before the layer's number: layers are of one stack if it agrees."""
    found = pattern.search(name)
    return name[: found.start("layer")] if found else None


def count_layers(names: Iterable[str], pattern: re.Pattern[str] = _LAYER) -> dict[str, int]:
    """Tensor name -> number of layers of its stack, for all tensors that belong to a layer.

    An encoder's and a decoder's layers are two stacks.
    """
    layers = {name: number for name in names if (number := layer_of(name, pattern)) is not None}
    counts: dict[str, int] = {}
    for name, number in layers.items():
        stack = str(stack_of(name, pattern))
        counts[stack] = max(counts.get(stack, 0), number + 1)
    return {name: counts[str(stack_of(name, pattern))] for name in layers}


def place_of(name: str, layer: int | None) -> Place:
    """Where a tensor lies, by its name: embeddings before the layers, last norms and heads after them.

    >>> place_of("model.embed_tokens.weight", None), place_of("model.norm.weight", None)
    ('before', 'after')
    """
    if layer is not None:
        return "layers"
    return "before" if _BEFORE.search(name.lower()) else "after"
