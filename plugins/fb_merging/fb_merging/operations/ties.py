"""TIES on tensors that are all at hand."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fb_merging.operations.combine import merge_elected
from fb_merging.operations.sparsify import count_kept, keep_largest, magnitudes_at


def ties(tensors: Sequence[Tensor], density: float, merge_func: str) -> Tensor:
    """Trim each tensor to its largest entries, elect a sign, merge what agrees with it.

    Args:
        tensors: Tensors of one shape.
        density: Fraction of the entries kept in each; all that equal the smallest one kept stay as well.
        merge_func: `mean`, `sum` or `max` of the entries that agree.
    """
    return merge_elected([_trim(tensor, density) for tensor in tensors], merge_func)


def _trim(tensor: Tensor, density: float) -> Tensor:
    if density == 1 or not tensor.numel():
        return tensor
    place = tensor.numel() - count_kept(density, tensor.numel())
    return keep_largest(tensor, magnitudes_at(tensor, [place])[0])
