"""Sums over whole tensors, in fp64 and the same whatever the number of threads."""

from __future__ import annotations

import math

from torch import Tensor

_BLOCK = 1 << 14
"""Entries added up at a time; torch sums so few in one thread, so the thread count changes no bit."""


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product of two tensors of one shape seen as vectors."""
    pairs = zip(a.reshape(-1).split(_BLOCK), b.reshape(-1).split(_BLOCK))
    return math.fsum(float((x.double() * y.double()).sum()) for x, y in pairs)


def l1_norm(tensor: Tensor) -> float:
    """Sum of all magnitudes."""
    return math.fsum(float(block.double().abs().sum()) for block in tensor.reshape(-1).split(_BLOCK))


def norm(tensor: Tensor) -> float:
    """Euclidean norm of a tensor seen as a vector."""
    return math.sqrt(dot(tensor, tensor))


def cosine_similarity(a: Tensor, b: Tensor) -> float | None:
    """Cosine of the angle between two tensors seen as vectors; None if one of them is 0."""
    length = norm(a) * norm(b)
    if length == 0:
        return None
    cosine = dot(a, b) / length
    # Not min and max, which would turn NaN into a bound.
    return cosine if abs(cosine) <= 1 or math.isnan(cosine) else math.copysign(1.0, cosine)
