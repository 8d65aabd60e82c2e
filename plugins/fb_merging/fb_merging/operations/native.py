"""Trimming and electing in C, where there is a compiler; the same bits as the torch code that calls it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionbench_core import NativeKernels


def library_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The functions, if these tensors are theirs: fp32, contiguous, of one shape, on the processor."""
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device.type != "cpu":
            return None
        if tensor.shape != tensors[0].shape:
            return None
    return _KERNELS.library(sum(tensor.numel() for tensor in tensors))


def keep_largest(library: ctypes.CDLL, delta: Tensor, threshold: float) -> Tensor:
    """`delta` with 0 in place of all entries whose magnitude is below `threshold`."""
    kept = torch.empty_like(delta)
    library.keep_largest(kept.data_ptr(), delta.data_ptr(), threshold, delta.numel())
    return kept


def count_inside(library: ctypes.CDLL, delta: Tensor, start: int, stop: int) -> tuple[NDArray[np.int32], int]:
    """The magnitudes' bits from `start` to before `stop`, and how many lie beyond."""
    inside, above = np.empty(delta.numel(), np.int32), ctypes.c_int64()
    arguments = inside.ctypes.data, ctypes.addressof(above), delta.data_ptr(), start, stop, delta.numel()
    found = library.count_inside(*arguments)
    return inside[:found].copy(), above.value


def elect_sign(library: ctypes.CDLL, deltas: Sequence[Tensor]) -> Tensor:
    """The sign of the sum of all: -1, 0 or 1."""
    out = torch.empty_like(deltas[0])
    pointers = _pointers(deltas)
    library.elect_sign(out.data_ptr(), ctypes.addressof(pointers), len(deltas), out.numel())
    return out


def disjoint_mean(
    library: ctypes.CDLL, deltas: Sequence[Tensor], sign: Tensor, weights: Sequence[float], smallest: float
) -> Tensor:
    """The mean of those updates that have the elected sign; no sum of weights is below `smallest`."""
    out = torch.empty_like(sign)
    pointers, each = _pointers(deltas), (ctypes.c_float * len(deltas))(*weights)
    addresses = ctypes.addressof(pointers), sign.data_ptr(), ctypes.addressof(each)
    library.disjoint_mean(out.data_ptr(), *addresses, len(deltas), smallest, out.numel())
    return out


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _agrees(library: ctypes.CDLL) -> bool:
    # Imported late: these modules use this one.
    from fb_merging.operations import combine, magnitude, sparsify

    generator = torch.Generator().manual_seed(0)
    deltas = list(torch.randn(3, 2003, generator=generator))
    deltas[0][:500] = deltas[1][:500] = 0
    deltas[2][250:750] = -deltas[0][250:750] - deltas[1][250:750]
    for delta in deltas:
        threshold = float(delta[1001].abs())
        if not _same(keep_largest(library, delta, threshold), sparsify.hardshrink_below(delta, threshold)):
            return False
        bits = magnitude.magnitude_bits(delta)
        start, stop = sorted(map(int, bits[1001:1003]))
        for limits in ((start, stop), (0, stop), (start, 1 << 31)):
            found, wanted = count_inside(library, delta, *limits), magnitude.bits_inside(bits, *limits)
            if found[1] != wanted[1] or not np.array_equal(found[0], wanted[0]):
                return False
    sign, weights = combine.sign_of_sum(deltas), [0.5, 1.0, 0.3]
    mean = disjoint_mean(library, deltas, sign, weights, 0.15)
    return _same(elect_sign(library, deltas), sign) and _same(
        mean, combine.mean_of_agreeing(deltas, sign, weights, 0.15)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_KERNELS = NativeKernels(
    Path(__file__).with_name("sparse.c"),
    {
        "keep_largest": (_POINTER, _POINTER, _FLOAT, _INTEGER),
        "count_inside": (_POINTER, _POINTER, _POINTER, _INTEGER, _INTEGER, _INTEGER),
        "elect_sign": (_POINTER, _POINTER, _INTEGER, _INTEGER),
        "disjoint_mean": (_POINTER, _POINTER, _POINTER, _POINTER, _INTEGER, _FLOAT, _INTEGER),
    },
    _agrees,
)
