"""The groups that the engine would hand to a tensor method, cut as a check wants them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fusionbench_core.dtypes import accumulation_dtype
from fusionbench_core.layers import count_layers, layer_of
from fusionbench_core.methods import Survey, TensorGroup, TensorMethod

State = Mapping[str, Tensor]


def merge_groups(
    method: TensorMethod, models: Mapping[str, State], base: State | None, *, entries: int | None = None
) -> dict[str, Tensor]:
    """Fuse the floating tensors of state dicts group by group, without the engine.

    Args:
        method: The method.
        models: Name -> state dict.
        base: The base, if there is one.
        entries: Entries of one group at most, where the locality allows to cut; None for whole tensors.
            Rows are never cut.
    """
    survey = _survey(method, models, base, entries)
    pieces: dict[str, list[Tensor]] = {}
    for group in groups(method, models, base, entries=entries, survey=survey):
        pieces.setdefault(group.name, []).append(method.merge(group).reshape(-1))
    template = next(iter(models.values()))
    return {name: torch.cat(parts).view(template[name].shape) for name, parts in pieces.items()}


def groups(
    method: TensorMethod,
    models: Mapping[str, State],
    base: State | None,
    *,
    entries: int | None = None,
    survey: Any = None,
) -> Iterator[TensorGroup]:
    """The groups of all floating tensors, in order; arguments as of :func:`merge_groups`."""
    names = tuple(models) if method.capabilities.ordered else tuple(sorted(models))
    template = next(iter(models.values()))
    layers = count_layers(template)
    for key, tensor in template.items():
        if not tensor.is_floating_point():
            continue
        dtype = accumulation_dtype(tensor.dtype)
        for start, shape in _cuts(tuple(tensor.shape), method.capabilities.locality, entries):
            stop = start + torch.Size(shape).numel()

            def piece(state: State, key=key, start=start, stop=stop, shape=shape, dtype=dtype) -> Tensor:
                return state[key].reshape(-1)[start:stop].to(dtype, copy=True).view(shape)

            yield TensorGroup(
                name=key,
                shape=tuple(tensor.shape),
                start=start,
                names=names,
                models=[piece(models[name]) for name in names],
                base=None if base is None else piece(base),
                seed=0,
                survey=survey,
                layer=layer_of(key),
                layers=layers.get(key),
            )


def _survey(
    method: TensorMethod, models: Mapping[str, State], base: State | None, entries: int | None
) -> Any:
    state: Any = method.survey()
    while isinstance(state, Survey):
        total = None
        for group in groups(method, models, base, entries=entries):
            seen = state.observe(group)
            total = seen if total is None else total + seen
        state = state.advance(total)
    return state


def _cuts(
    shape: tuple[int, ...], locality: str, entries: int | None
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """`(start, shape)` of each group of a tensor of this shape."""
    size = torch.Size(shape).numel()
    if locality == "element":
        step = max(entries or size, 1)
        for start in range(0, max(size, 1), step):
            yield start, (min(step, size - start),)
    elif locality == "row" and len(shape) > 1 and size:
        row = size // shape[0]
        rows = max((entries or size) // row, 1)
        for first in range(0, shape[0], rows):
            yield first * row, (min(rows, shape[0] - first), *shape[1:])
    else:
        yield 0, shape
