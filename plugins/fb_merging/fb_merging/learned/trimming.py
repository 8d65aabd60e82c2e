"""Trimmed task vectors of models that are in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fb_merging.operations.combine import elect_sign
from fb_merging.operations.sparsify import count_kept


def ties_trimmed(vectors: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Task vectors trimmed as TIES-Merging does, and without the entries against the elected sign.

    Args:
        vectors: Tensor name -> task vectors of all models, `(models, *shape)`.
        density: Fraction of the entries of each model's whole task vector to keep.
    """
    trimmed = largest(vectors, density)
    return {
        name: torch.where(each.sign() == elect_sign(list(each)), each, 0) for name, each in trimmed.items()
    }


def largest(vectors: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Task vectors with zeros in place of all but the largest entries of each model, over all its tensors."""
    if density == 1 or not vectors:
        return dict(vectors)
    thresholds = _thresholds(vectors, density)
    return {
        name: torch.where(each.abs() >= thresholds.to(each).view(-1, *[1] * (each.dim() - 1)), each, 0)
        for name, each in vectors.items()
    }


def _thresholds(vectors: Mapping[str, Tensor], density: float) -> Tensor:
    """The smallest magnitude to keep of each model, `(models,)`."""
    count = len(next(iter(vectors.values())))
    found = []
    for model in range(count):
        sizes = torch.cat([each[model].abs().flatten() for each in vectors.values()])
        kept = count_kept(density, sizes.numel())
        found.append(sizes.kthvalue(sizes.numel() - kept + 1).values)
    return torch.stack(found)
