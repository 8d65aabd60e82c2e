"""Make task vectors sparse.

Every function gives a new tensor of the shape of `delta`, which is not written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fb_merging.operations import native
from fb_merging.operations.vectors import l1_norm

Rescale = Literal["probability", "l1", "none"]
"""What becomes of kept entries: divided by the probability to be kept, so that the expectation stays; scaled
so that the tensor's L1 norm stays; or left as they are."""


def count_kept(density: float, n: int) -> int:
    """How many of `n` entries a fraction `density` is: rounded to the nearest, but at least one."""
    return max(1, round(density * n))


def keep_largest(delta: Tensor, threshold: float) -> Tensor:
    """`delta` with 0 in place of all entries whose magnitude is below `threshold`, a number of its dtype."""
    library = native.library_for(delta.numel()) if native.pieces_of([delta]) else None
    return native.keep_largest(library, delta, threshold) if library else hardshrink_below(delta, threshold)


def hardshrink_below(delta: Tensor, threshold: float) -> Tensor:
    """What :func:`keep_largest` gives, by torch."""
    # hardshrink is one vectorised pass, over ten times faster than a mask, but it drops entries that equal
    # its bound as well. So the bound is the next smaller number.
    number = np.float64 if delta.dtype == torch.float64 else np.float32
    return functional.hardshrink(delta, float(np.nextafter(number(threshold), number(-np.inf))))


def keep_band(delta: Tensor, density: float, gamma: float) -> Tensor:
    """Drop the fraction `gamma` of largest magnitudes, then keep the fraction `density` of largest ones left.

    `density` comes first: with `density + gamma` above 1, less than `gamma` is dropped. Entries that equal a
    bound are kept.
    """
    n = delta.numel()
    if n == 0 or density == 1:
        return delta.clone()
    lowest, largest = magnitudes_at(delta, places_of_band(n, density, gamma))
    band = keep_largest(delta, lowest)
    return band.sub_(functional.hardshrink(delta, largest))


def places_of_band(n: int, density: float, gamma: float) -> tuple[int, int]:
    """Where the smallest and the largest magnitude that :func:`keep_band` keeps are if all are sorted."""
    kept = count_kept(density, n)
    dropped = min(round(gamma * n), n - kept)
    return n - dropped - kept, n - dropped - 1


def magnitudes_at(delta: Tensor, places: Sequence[int]) -> list[float]:
    """The magnitudes that would be at these places if all were sorted, the smallest first."""
    magnitude = np.abs(delta.detach().reshape(-1).numpy())
    return np.partition(magnitude, places)[list(places)].tolist()


def drop_at_random(delta: Tensor, uniform: Tensor, probability: Tensor | float, rescale: Rescale) -> Tensor:
    """Keep every entry with its `probability`: where `uniform`, drawn from [0, 1), is below it."""
    numbers = [uniform, *([probability] if isinstance(probability, Tensor) else [])]
    library = native.library_for(delta.numel()) if native.pieces_of([delta, *numbers]) else None
    divide = rescale == "probability"
    if library:
        kept = native.drop_at_random(library, delta, uniform, probability, rescale=divide)
    else:
        kept = drop_by_mask(delta, uniform, probability)
        if divide:
            kept.div_(probability)
    return restore_l1(kept, delta, rescale)


def drop_by_mask(delta: Tensor, uniform: Tensor, probability: Tensor | float) -> Tensor:
    """`delta` where `uniform` is below `probability`, else 0."""
    # 1 where the entry stays: float passes are vectorised, masks are not.
    stays = (probability - uniform).sign_().clamp_(min=0)
    # Without a negative 0, as in C.
    return stays.to(delta.dtype).mul_(delta).add_(0.0)


def drop_by_rank(delta: Tensor, uniform: Tensor, density: float, epsilon: float, rescale: Rescale) -> Tensor:
    """Keep every entry with its :func:`rank_probability`, by its rank in the last dimension."""
    return drop_at_random(delta, uniform, rank_probability(delta, density, epsilon), rescale)


def linear_probabilities(n: int, density: float, epsilon: float, dtype: torch.dtype) -> Tensor:
    """From `density - epsilon` to `density + epsilon`, `(n,)`."""
    return torch.linspace(density - epsilon, density + epsilon, n, dtype=dtype)


def rank_probability(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Probabilities from `density - epsilon` to `density + epsilon`, in steps by the rank of the magnitude.

    Entries are ranked within the last dimension; equal magnitudes by their position. A single entry gets
    `density`.
    """
    n = delta.shape[-1]
    if n == 1:
        return torch.full_like(delta, density)
    steps = linear_probabilities(n, density, epsilon, delta.dtype)
    result = np.empty(delta.shape, dtype=steps.numpy().dtype)
    np.put_along_axis(result, _ascending(delta), np.broadcast_to(steps.numpy(), delta.shape), axis=-1)
    return torch.from_numpy(result)


def restore_l1(kept: Tensor, delta: Tensor, rescale: Rescale) -> Tensor:
    """`kept`, scaled in place to the L1 norm of `delta` if `rescale` is "l1" and anything was kept."""
    if rescale == "l1":
        remaining = l1_norm(kept)
        kept.mul_(l1_norm(delta) / remaining if remaining else 1.0)
    return kept


def _ascending(delta: Tensor) -> NDArray[np.int64]:
    """Places in the last dimension by the magnitude found there, equal ones in their order."""
    magnitude = np.ascontiguousarray(delta.detach().abs().numpy())
    if magnitude.dtype != np.float32:
        return np.argsort(magnitude, axis=-1, kind="stable")
    # Bits and place in one number: sorting integers is ten times as fast as a stable sort of floats.
    keys = magnitude.view(np.int32).astype(np.int64) << 32
    keys += np.arange(delta.shape[-1])
    keys.sort(axis=-1)
    return keys & 0xFFFFFFFF
