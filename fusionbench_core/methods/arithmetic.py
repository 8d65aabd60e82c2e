"""What is done to every entry of every model: widen, subtract, add, narrow.

In C where that is there, else in torch; the bits are the same. All tensors are flat and contiguous.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints.finite import surely_finite
from fusionbench_core.methods.stored import StoredPieces, code_of, readable
from fusionbench_core.native import NativeKernels


def widen(stored: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A copy in `dtype`, and whether it is surely finite."""
    if dtype == torch.float32 and readable(stored) and (library := _KERNELS.library(stored.numel())):
        out = torch.empty(stored.shape, dtype=dtype)
        return out, bool(library.widen(out.data_ptr(), stored.data_ptr(), code_of(stored), stored.numel()))
    out = stored.to(dtype, copy=True)
    return out, surely_finite(out)


def subtract(stored: Tensor, base: Tensor, out: Tensor) -> bool:
    """`out = stored - base`; whether it is surely finite."""
    alike = base.dtype == out.dtype == torch.float32 and base.numel() == stored.numel() and readable(stored)
    if alike and (library := _KERNELS.library(stored.numel())):
        taken = stored.data_ptr(), code_of(stored), base.data_ptr()
        return bool(library.subtract(out.data_ptr(), *taken, stored.numel()))
    return surely_finite(out.copy_(stored).sub_(base))


def weighted_sum(
    pieces: StoredPieces, weights: Sequence[float], divisor: float
) -> tuple[Tensor, bool] | None:
    """The sum of weight x model over `divisor`, in fp32, and whether it is surely finite.

    Each multiplication and addition is rounded once. None: compute it in torch.
    """
    return _over_models("weighted_sum", pieces, weights, divisor)


def shifted_base(pieces: StoredPieces, weights: Sequence[float], scale: float) -> tuple[Tensor, bool] | None:
    """Base + scale x the sum of weight x (model - base), as :func:`weighted_sum` gives sums."""
    return _over_models("shifted_base", pieces, weights, scale)


def _over_models(
    name: str, pieces: StoredPieces, weights: Sequence[float], number: float
) -> tuple[Tensor, bool] | None:
    library = _KERNELS.library(pieces.entries * pieces.models)
    if library is None:
        return None
    out, each = torch.empty(pieces.entries, dtype=torch.float32), (ctypes.c_float * pieces.models)(*weights)
    return out, bool(getattr(library, name)(out.data_ptr(), pieces.address, ctypes.addressof(each), number))


def narrow(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """`values` in `dtype`, which may be theirs, and whether that is surely finite."""
    alike = values.dtype == torch.float32 and dtype == torch.bfloat16 and readable(values)
    if alike and (library := _KERNELS.library(values.numel())):
        out = torch.empty(values.shape, dtype=dtype)
        if library.narrow_bfloat16(out.data_ptr(), values.data_ptr(), values.numel()):
            return out, True
    result = values.to(dtype)
    return result, values.dtype in (torch.float32, torch.float64) and surely_finite(values, dtype)


def _agrees(library: ctypes.CDLL) -> bool:
    """Whether all functions give torch's bits: for numbers of all sizes, and a length no vector divides."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-44, 37, 1003, dtype=torch.float64)
    wide, base = (
        (torch.randn(1003, generator=generator, dtype=torch.float64) * scales).float() for _ in "ab"
    )
    n = 1003
    for dtype in (torch.float32, torch.bfloat16):
        stored, out = wide.to(dtype), torch.empty_like(wide)
        library.widen(out.data_ptr(), stored.data_ptr(), code_of(stored), n)
        if not _same(out, stored.float()):
            return False
        library.subtract(out.data_ptr(), stored.data_ptr(), code_of(stored), base.data_ptr(), n)
        if not _same(out, stored.float() - base):
            return False
        pieces, weights = StoredPieces([stored, base], stored.flip(0)), (ctypes.c_float * 2)(0.7, 0.3)
        library.weighted_sum(out.data_ptr(), pieces.address, ctypes.addressof(weights), 3.0)
        total = (stored.float() * weights[0]).add_(base, alpha=weights[1])
        if not _same(out, total.div_(3.0)):
            return False
        library.shifted_base(out.data_ptr(), pieces.address, ctypes.addressof(weights), 0.4)
        start = stored.flip(0).float()
        total = torch.zeros_like(wide)
        for one, weight in zip((stored, base), weights):
            total.add_(one.float() - start, alpha=weight)
        if not _same(out, torch.add(start, total, alpha=0.4)):
            return False
    narrowed = torch.empty(n, dtype=torch.bfloat16)
    library.narrow_bfloat16(narrowed.data_ptr(), wide.data_ptr(), n)
    return bool(torch.equal(narrowed.view(torch.int16), wide.bfloat16().view(torch.int16)))


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_KERNELS = NativeKernels(
    Path(__file__).with_name("arithmetic.c"),
    {
        "widen": (_POINTER, _POINTER, _INTEGER, _INTEGER),
        "subtract": (_POINTER, _POINTER, _INTEGER, _POINTER, _INTEGER),
        "weighted_sum": (_POINTER, _POINTER, _POINTER, ctypes.c_float),
        "shifted_base": (_POINTER, _POINTER, _POINTER, ctypes.c_float),
        "narrow_bfloat16": (_POINTER, _POINTER, _INTEGER),
    },
    _agrees,
)
