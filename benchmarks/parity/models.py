"""Small models that hold every kind of tensor that merging methods stumble over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Model = dict[str, Tensor]

NAMES = ("a", "b", "c")


def make_models(seed: int, dtype: torch.dtype) -> dict[str, Model]:
    """`base` and the models of `NAMES`; floating-point tensors are drawn in fp64, then rounded to `dtype`."""
    made = dict(_tensors(torch.Generator().manual_seed(seed)))
    models = {}
    for index, model in enumerate(("base", *NAMES)):
        state = {name: each[index] for name, each in made.items()}
        state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}
        state["head.weight"] = state["embed.weight"]
        models[model] = state
    return models


Versions = list[Tensor]
"""One tensor of the base, then of each model."""


def _tensors(generator: torch.Generator) -> Iterator[tuple[str, Versions]]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def updated(base: Tensor, update: Callable[[], Tensor]) -> Versions:
        return [base, *(base + update() for _ in NAMES)]

    def plain(*shape: int, size: float = 0.5) -> Versions:
        return updated(normal(*shape), lambda: normal(*shape) * size)

    def sparse() -> Tensor:
        kept = torch.rand(16, 20, generator=generator) < 0.2
        return torch.where(kept, normal(16, 20), 0.0)

    def signs() -> Tensor:
        return normal(8, 8).sign() * 0.25

    def dyadic(*shape: int) -> Tensor:
        return (normal(*shape) * 4).round() / 4

    yield "square.weight", plain(24, 24)
    yield "square.bias", plain(24)
    yield "tall.weight", plain(40, 12)
    yield "wide.weight", plain(12, 40)
    yield "embed.weight", plain(30, 12)
    yield "conv.weight", plain(6, 4, 3, 3)
    yield "norm.weight", plain(24)
    yield "close.weight", plain(20, 20, size=1e-3)
    yield "low_rank.weight", updated(normal(20, 16), lambda: normal(20, 2) @ normal(2, 16) * 0.3)
    yield "sparse.weight", updated(normal(16, 20), sparse)
    yield "outliers.weight", updated(normal(20, 20), lambda: normal(20, 20) / normal(20, 20).abs() * 0.2)
    base = normal(10, 14)
    yield "unchanged.weight", [base] * 4
    base = normal(14, 10)
    yield "changed_by_a.weight", [base, base + normal(14, 10) * 0.5, base, base]
    base, update = dyadic(8, 8), dyadic(8, 8)
    yield "cancelling.weight", [base, base + update, base - update, base]
    yield "equal_sizes.weight", updated(dyadic(8, 8), signs)
    yield "column.weight", plain(12, 1)
    yield "single.value", plain(1)
    yield "scalar.value", plain()
    yield "packed.weight", plain(6, 64)
    yield "steps", [torch.tensor(number) for number in (10, 10, 13, 17)]
    yield "positions", [torch.arange(6)] * 4
    flags = torch.tensor([True, False, True, True])
    yield "flags", [flags, flags, ~flags, flags]
