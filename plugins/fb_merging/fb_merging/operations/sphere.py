"""Means on the sphere.

All of them are linear combinations of the given vectors, so they are found as coefficients, from the cosines
between the vectors alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fb_merging.operations.vectors import dot, norm

CANCELLED = 1e-6
"""A sum of unit vectors shorter than this has no direction but that of rounding errors."""

COLLINEAR = 1 - 1e-12
"""Cosines beyond this belong to vectors that are parallel or opposite, up to rounding."""


def arc_weights(cosine: float | None, t: float, threshold: float) -> tuple[float, float]:
    """Weights of two vectors in the point that divides the arc between them at `t`.

    They are 1 - t and t if the cosine is beyond ±`threshold`, or None.
    """
    if cosine is None or abs(cosine) > threshold:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def cosines(vectors: Sequence[Tensor], norms: Sequence[float]) -> Tensor:
    """fp64 `(n, n)`: cosines between non-zero vectors."""
    result = torch.eye(len(vectors), dtype=torch.float64)
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors[:i]):
            result[i, j] = result[j, i] = dot(a, b) / (norms[i] * norms[j])
    return result.clamp_(-1, 1)


def karcher_mean(gram: Tensor, weights: Tensor, max_iter: int, tolerance: float) -> Tensor | None:
    """Coefficients of the point with the least weighted sum of squared angles to unit vectors.

    Args:
        gram: fp64 `(n, n)`, cosines between the vectors.
        weights: fp64 `(n,)`, not negative, that add up to 1.
        max_iter: Most steps of the fixed-point iteration.
        tolerance: Stop at steps shorter than this, in radians.

    Returns:
        fp64 `(n,)`; None where the weighted sum of the vectors is 0, which leaves the mean undefined.
    """
    length = _length(weights, gram)
    if length < CANCELLED:
        return None
    mean = weights / length
    for _ in range(max_iter):
        cosine = (gram @ mean).clamp(-1, 1)
        apart = cosine.abs() < COLLINEAR
        angle = torch.where(apart, cosine, 0).acos()
        pull = weights * torch.where(apart, angle / angle.sin(), cosine > 0)
        step = pull - (pull @ cosine) * mean
        length = _length(step, gram)
        if length < tolerance:
            break
        mean = math.cos(length) * mean + math.sin(length) / length * step
        mean /= _length(mean, gram)
    return mean


def on_sphere(
    vectors: Sequence[Tensor], weights: Sequence[float], max_iter: int = 0, tolerance: float = 1e-5
) -> Tensor:
    """A mean direction, with the weighted mean of the lengths; the weights add up to 1.

    With `max_iter=0` the direction is that of the weighted sum of the unit vectors, otherwise the Karcher
    mean. Zero vectors have no direction and count for the length alone. Where the unit vectors cancel, the
    weighted sum of the vectors.
    """
    norms = [norm(vector) for vector in vectors]
    used = [i for i, length in enumerate(norms) if length > 0 and weights[i] != 0]
    share = torch.tensor([weights[i] for i in used], dtype=torch.float64)
    gram = cosines([vectors[i] for i in used], [norms[i] for i in used])
    mean = karcher_mean(gram, share / share.sum() if max_iter else share, max_iter, tolerance)
    if mean is None:
        factors = list(weights)
    else:
        length = math.fsum(w * n for w, n in zip(weights, norms))
        factors = [0.0] * len(vectors)
        for i, coefficient in zip(used, mean.tolist()):
            factors[i] = coefficient * length / norms[i]
    result = torch.zeros_like(vectors[0])
    for vector, factor in zip(vectors, factors):
        result.add_(vector, alpha=factor)
    return result


def _length(coefficients: Tensor, gram: Tensor) -> float:
    return math.sqrt(max(0.0, float(coefficients @ gram @ coefficients)))
