"""Make task vectors sparse.

Every function gives a new tensor of the shape of `delta`, which is not written to.
"""

from __future__ import annotations

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
    kept = count_kept(density, n)
    dropped = min(round(gamma * n), n - kept)
    magnitude = np.abs(delta.detach().reshape(-1).numpy())
    places = (n - dropped - kept, n - dropped - 1)
    lowest, largest = np.partition(magnitude, places)[list(places)]
    band = keep_largest(delta, float(lowest))
    return band.sub_(functional.hardshrink(delta, float(largest)))


def drop_at_random(delta: Tensor, uniform: Tensor, probability: Tensor | float, rescale: Rescale) -> Tensor:
    """Keep every entry with its `probability`: where `uniform`, drawn from [0, 1), is below it."""
    # 1 where the entry stays: float passes are vectorised, masks are not.
    stays = (probability - uniform).sign_().clamp_(min=0)
    kept = stays.to(delta.dtype).mul_(delta)
    return kept.div_(probability) if rescale == "probability" else restore_l1(kept, delta, rescale)


def rank_probability(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """Probabilities from `density - epsilon` to `density + epsilon`, in steps by the rank of the magnitude.

    Entries are ranked within the last dimension; equal magnitudes by their position. A single entry gets
    `density`.
    """
    n = delta.shape[-1]
    if n == 1:
        return torch.full_like(delta, density)
    steps = torch.linspace(density - epsilon, density + epsilon, n, dtype=delta.dtype)
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
