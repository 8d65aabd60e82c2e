"""Small methods and models for the engine's tests; the core has no method of its own."""

from __future__ import annotations

import torch

from fusionbench_core import Capabilities, MethodRecord, Survey, TensorMethod, implements


def record(name: str, **capabilities) -> MethodRecord:
    return MethodRecord(
        name=name, target="x:y", summary="for tests", capabilities=Capabilities(**capabilities)
    )


@implements(record("mean"))
class Mean(TensorMethod):
    def merge(self, group):
        return sum(group.models) / len(group.models)


@implements(record("arithmetic", base="required"))
class Arithmetic(TensorMethod):
    scale: float = 0.5

    def merge(self, group):
        return group.base + self.scale * sum(group.deltas)


@implements(record("noisy", base="required", random=True))
class Noisy(TensorMethod):
    def merge(self, group):
        kept = [delta * (group.uniform(name) < 0.5) for name, delta in zip(group.names, group.deltas)]
        return group.base + sum(kept)


@implements(record("rowwise", locality="row"))
class RowWise(TensorMethod):
    def merge(self, group):
        total = sum(group.models)
        return total if total.ndim < 2 else total / total.norm(dim=-1, keepdim=True).clamp(min=1e-12)


@implements(record("whole", locality="tensor"))
class Whole(TensorMethod):
    def merge(self, group):
        return sum(group.models) * sum(model.norm() for model in group.models)


class Largest(Survey):
    def observe(self, group):
        return _Max([model.abs().max().item() if model.numel() else 0.0 for model in group.models])

    def advance(self, total):
        return total.values


class _Max:
    def __init__(self, values):
        self.values = values

    def __add__(self, other):
        return _Max([max(a, b) for a, b in zip(self.values, other.values)])


@implements(record("surveyed", surveys=1))
class Surveyed(TensorMethod):
    def survey(self):
        return Largest()

    def merge(self, group):
        return sum(model / largest for model, largest in zip(group.models, group.survey))


ALL = [Mean(), Arithmetic(), Noisy(), RowWise(), Whole(), Surveyed()]


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A state dict with everything that trips mergers up; the big tensor spans several pieces."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "big": torch.randn(1700, 700, generator=generator).to(dtype),
        "vector": torch.randn(9, generator=generator).to(dtype),
        "one": torch.randn(1, generator=generator).to(dtype),
        "scalar": torch.tensor(float(seed), dtype=dtype),
        "empty": torch.empty(0, 4, dtype=dtype),
        "strided": torch.randn(6, 8, generator=generator).to(dtype).t(),
        "counter": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
    }
