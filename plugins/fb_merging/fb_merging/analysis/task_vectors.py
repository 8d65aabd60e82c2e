"""What there is to know about the task vectors of a pool, in one streaming pass over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fb_merging.operations.magnitude import magnitude_bits
from fusionbench_core import Survey, TensorGroup

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Fractions of the entries."""

_LOW_BITS = 15
"""Bits of an fp32 magnitude that the histogram does not tell apart: quantiles are exact to 1 in 128."""


@dataclass(frozen=True)
class Layer:
    """Sums over the tensors of one layer, or outside of the layers.

    Attributes:
        energy: Squared norms, fp64 `(models,)`.
        shared: Entries that at least two models change.
        conflicts: Those of them that some models increase and others decrease.
    """

    energy: Tensor
    shared: int
    conflicts: int

    def __add__(self, other: Layer) -> Layer:
        return Layer(self.energy + other.energy, self.shared + other.shared, self.conflicts + other.conflicts)


@dataclass(frozen=True)
class Sums:
    """Sums over groups, for the models of `names`.

    Attributes:
        entries: Entries seen.
        total: Sums of the entries, fp64 `(models,)`.
        gram: Inner products of the task vectors, fp64 `(models, models)`.
        shared: Entries that both models of a pair change, int64 `(models, models)`.
        opposed: Those of them that they change in opposite directions, int64 `(models, models)`.
        histogram: Magnitudes by the upper 16 bits of their fp32 value, int64 `(models, 65536)`.
        layers: Index of a layer, None outside of the layers -> its sums.
    """

    names: tuple[str, ...]
    entries: int
    total: Tensor
    gram: Tensor
    shared: Tensor
    opposed: Tensor
    histogram: Tensor
    layers: dict[int | None, Layer] = field(default_factory=dict)

    def __add__(self, other: Sums) -> Sums:
        layers = dict(self.layers)
        for index, layer in other.layers.items():
            layers[index] = layers[index] + layer if index in layers else layer
        return Sums(
            self.names,
            self.entries + other.entries,
            self.total + other.total,
            self.gram + other.gram,
            self.shared + other.shared,
            self.opposed + other.opposed,
            self.histogram + other.histogram,
            layers,
        )


@dataclass(frozen=True)
class TaskVectorSums(Survey):
    """Adds everything up; the result is a :class:`Sums`, None if no tensor is merged."""

    def observe(self, group: TensorGroup) -> Sums:
        deltas = torch.stack([delta.reshape(-1) for delta in group.deltas])
        wide = deltas.double()
        # Sums of so few entries of -1, 0 and 1 are exact in fp64.
        signs = wide.sign()
        agreement, both = signs @ signs.T, signs.abs() @ signs.abs().T
        changed, balance = signs.abs().sum(0), signs.sum(0).abs()
        shared = changed >= 2
        layer = Layer(wide.square().sum(1), int(shared.sum()), int((shared & (balance < changed)).sum()))
        return Sums(
            group.names,
            deltas.shape[1],
            wide.sum(1),
            wide @ wide.T,
            both.long(),
            ((both - agreement) / 2).long(),
            torch.stack([_histogram(delta) for delta in deltas]),
            {group.layer: layer},
        )

    def advance(self, total: Sums | None) -> Sums | None:
        return total


def describe(sums: Sums) -> dict[str, Any]:
    """JSON-able facts: norms, similarities of each pair, conflicts, quantiles of the magnitudes, and how many
    entries have which: `sizes.log10` are the middles of tenths of a decade, and each model's numbers the
    fractions of its entries in them.

    The measures of kinship are means over all pairs: cosine similarity, Pearson correlation of the entries
    and Euclidean distance of the task vectors (Hu et al., Exploring Model Kinship for Merging Large Language
    Models, 2024, arXiv:2410.12613). None stands for what a task vector of 0 does not have.
    """
    names, squares = list(sums.names), sums.gram.diagonal()
    means = sums.total / max(sums.entries, 1)
    covariance = sums.gram - sums.entries * torch.outer(means, means)
    cosine, correlation = _normalised(sums.gram), _normalised(covariance)
    distance = (squares[:, None] + squares - 2 * sums.gram).clamp(min=0).sqrt().tolist()
    order = sorted(sums.layers, key=lambda index: (index is None, index or 0))
    return {
        "models": names,
        "entries": sums.entries,
        "norm": dict(zip(names, squares.sqrt().tolist())),
        "cosine": cosine,
        "correlation": correlation,
        "distance": distance,
        "kinship": {
            "cosine": _mean_of_pairs(cosine),
            "correlation": _mean_of_pairs(correlation),
            "distance": _mean_of_pairs(distance),
        },
        "sign_conflict": {
            "pairs": _fractions(sums.opposed, sums.shared),
            "all": _fraction(
                sum(layer.conflicts for layer in sums.layers.values()),
                sum(layer.shared for layer in sums.layers.values()),
            ),
            "layers": {
                _called(index): _fraction(sums.layers[index].conflicts, sums.layers[index].shared)
                for index in order
            },
        },
        "layer_norm": {
            _called(index): dict(zip(names, sums.layers[index].energy.sqrt().tolist())) for index in order
        },
        "magnitude": {
            "quantiles": list(QUANTILES),
            **{name: _quantiles(counts) for name, counts in zip(names, sums.histogram)},
        },
        "sizes": _sizes(names, sums.histogram),
    }


def _histogram(delta: Tensor) -> Tensor:
    return torch.from_numpy(np.bincount(magnitude_bits(delta) >> _LOW_BITS, minlength=1 << 16))


def _quantiles(counts: Tensor) -> list[float]:
    """Lower bounds of the buckets that hold the quantiles."""
    running, n = counts.cumsum(0), int(counts.sum())
    if n == 0:
        return []
    ranks = torch.tensor([max(1, math.ceil(q * n)) for q in QUANTILES])
    buckets = torch.searchsorted(running, ranks)
    return (buckets << _LOW_BITS).int().view(torch.float32).tolist()


def _sizes(names: list[str], histogram: Tensor) -> dict[str, list[float]]:
    """The fractions of the entries in each tenth of a decade, from the first that holds any to the last."""
    bounds = (torch.arange(histogram.shape[1]) << _LOW_BITS).int().view(torch.float32).double()
    held = histogram.any(0) & (bounds > 0) & bounds.isfinite()
    places = (10 * bounds[held].log10()).floor().long()
    if not len(places):
        return {"log10": [], **{name: [] for name in names}}
    first, counts = int(places.min()), histogram[:, held]
    sums = torch.zeros(len(names), int(places.max()) - first + 1, dtype=torch.int64)
    fractions = sums.index_add_(1, places - first, counts) / histogram.sum(1, keepdim=True)
    middles = [round((first + place) / 10 + 0.05, 2) for place in range(sums.shape[1])]
    return {"log10": middles, **dict(zip(names, fractions.tolist()))}


def _normalised(products: Tensor) -> list[list[float | None]]:
    lengths = products.diagonal().clamp(min=0).sqrt()
    values = products / torch.outer(lengths, lengths)
    return [[min(max(v, -1.0), 1.0) if v == v else None for v in row] for row in values.tolist()]


def _mean_of_pairs(values: list[list[float | None]]) -> float | None:
    pairs = [row[j] for i, row in enumerate(values) for j in range(i)]
    known = [value for value in pairs if value is not None]
    return sum(known) / len(known) if known else None


def _fractions(parts: Tensor, wholes: Tensor) -> list[list[float | None]]:
    return [[_fraction(a, b) for a, b in zip(*rows)] for rows in zip(parts.tolist(), wholes.tolist())]


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _called(layer: int | None) -> str:
    return "outside" if layer is None else str(layer)
