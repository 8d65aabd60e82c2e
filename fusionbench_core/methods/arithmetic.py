"""What is done to every entry of every model: widen, subtract, add, narrow.

In C where that is there, else in torch; the bits are the same. All tensors are flat and contiguous.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints.finite import surely_finite
from fusionbench_core.native import NativeKernels

_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float"}


def widen(stored: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A copy in `dtype`, and whether it is surely finite."""
    if dtype == torch.float32 and (library := _library(stored)):
        out = torch.empty(stored.shape, dtype=dtype)
        widen_stored = getattr(library, f"widen_{_NAMES[stored.dtype]}")
        return out, bool(widen_stored(out.data_ptr(), stored.data_ptr(), stored.numel()))
    out = stored.to(dtype, copy=True)
    return out, surely_finite(out)


def subtract(stored: Tensor, base: Tensor, out: Tensor) -> bool:
    """`out = stored - base`; whether it is surely finite."""
    alike = base.dtype == out.dtype == torch.float32 and base.numel() == stored.numel()
    if alike and (library := _library(stored)):
        subtract_stored = getattr(library, f"subtract_{_NAMES[stored.dtype]}")
        return bool(subtract_stored(out.data_ptr(), stored.data_ptr(), base.data_ptr(), stored.numel()))
    return surely_finite(out.copy_(stored).sub_(base))


def add(total: Tensor, stored: Tensor, weight: float, scratch: Tensor) -> None:
    """`total += weight * stored`, rounded once; `scratch` is overwritten."""
    if total.dtype == torch.float32 and (library := _library(stored)):
        add_stored = getattr(library, f"add_{_NAMES[stored.dtype]}")
        add_stored(total.data_ptr(), stored.data_ptr(), weight, stored.numel())
    else:
        total.add_(scratch.copy_(stored), alpha=weight)


def narrow(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """`values` in `dtype`, which may be theirs, and whether that is surely finite."""
    if (
        values.dtype == torch.float32
        and dtype == torch.bfloat16
        and (library := _library(values)) is not None
    ):
        out = torch.empty(values.shape, dtype=dtype)
        if library.narrow_bfloat16(out.data_ptr(), values.data_ptr(), values.numel()):
            return out, True
    result = values.to(dtype)
    return result, values.dtype in (torch.float32, torch.float64) and surely_finite(values, dtype)


def _library(stored: Tensor) -> ctypes.CDLL | None:
    if stored.dtype not in _NAMES or not stored.is_contiguous() or stored.device.type != "cpu":
        return None
    return _KERNELS.library(stored.numel())


def _agrees(library: ctypes.CDLL) -> bool:
    """Whether all functions give torch's bits: for numbers of all sizes, and a length no vector divides."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-44, 37, 1003, dtype=torch.float64)
    wide, base = (
        (torch.randn(1003, generator=generator, dtype=torch.float64) * scales).float() for _ in "ab"
    )
    out, n = torch.empty(1003), 1003
    for dtype, name in _NAMES.items():
        stored = wide.to(dtype)
        getattr(library, f"widen_{name}")(out.data_ptr(), stored.data_ptr(), n)
        if not _same(out, stored.float()):
            return False
        getattr(library, f"subtract_{name}")(out.data_ptr(), stored.data_ptr(), base.data_ptr(), n)
        if not _same(out, stored.float() - base):
            return False
        getattr(library, f"add_{name}")(out.copy_(base).data_ptr(), stored.data_ptr(), 0.3, n)
        if not _same(out, base.add(stored.float(), alpha=0.3)):
            return False
    narrowed = torch.empty(n, dtype=torch.bfloat16)
    library.narrow_bfloat16(narrowed.data_ptr(), wide.data_ptr(), n)
    return bool(torch.equal(narrowed.view(torch.int16), wide.bfloat16().view(torch.int16)))


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_TYPES: dict[str, tuple[type, ...]] = {
    "widen": (_POINTER, _POINTER, _INTEGER),
    "subtract": (_POINTER, _POINTER, _POINTER, _INTEGER),
    "add": (_POINTER, _POINTER, _FLOAT, _INTEGER),
}
_KERNELS = NativeKernels(
    Path(__file__).with_name("arithmetic.c"),
    {
        **{f"{does}_{name}": types for does, types in _TYPES.items() for name in _NAMES.values()},
        "narrow_bfloat16": (_POINTER, _POINTER, _INTEGER),
    },
    _agrees,
)
