"""Pieces of tensors as they are stored, handed to functions in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

_CODES = {torch.float32: 0, torch.bfloat16: 1}
"""Number of each dtype that the functions can read; the same as in `stored.h`."""


class _Pieces(ctypes.Structure):
    _fields_ = (
        ("entries", ctypes.c_int64),
        ("models", ctypes.c_int64),
        ("model", ctypes.c_void_p),
        ("dtype", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("base_dtype", ctypes.c_int64),
    )


class StoredPieces:
    """The same piece of one tensor of every model, as it is stored: `pieces` of `stored.h`.

    A C file that a :class:`~fusionbench_core.NativeKernels` compiles includes that header, and reads the
    pieces block by block, so that nothing is widened or subtracted into memory.

    Args:
        models: One tensor a model, of equal size. Nobody may write to them.
        base: That of the base, None without.

    Attributes:
        entries: Entries of each piece.
        models: Number of models.
        address: Where the structure is, for a `const pieces *`.
    """

    def __init__(self, models: Sequence[Tensor], base: Tensor | None = None) -> None:
        self.entries, self.models = models[0].numel(), len(models)
        self._kept = [*models, base]
        self._model = (ctypes.c_void_p * self.models)(*(one.data_ptr() for one in models))
        self._dtype = (ctypes.c_int64 * self.models)(*(_CODES[one.dtype] for one in models))
        self._pieces = _Pieces(
            self.entries,
            self.models,
            ctypes.addressof(self._model),
            ctypes.addressof(self._dtype),
            None if base is None else base.data_ptr(),
            0 if base is None else _CODES[base.dtype],
        )
        self.address = ctypes.addressof(self._pieces)

    @classmethod
    def of(cls, models: Sequence[Tensor], base: Tensor | None = None) -> StoredPieces | None:
        """The pieces, or None where functions in C cannot read them: other dtypes, strides or devices."""
        entries = models[0].numel()
        for one in models if base is None else (*models, base):
            if not readable(one) or one.numel() != entries:
                return None
        return cls(models, base)


def readable(stored: Tensor) -> bool:
    """Whether functions in C can read it."""
    return stored.dtype in _CODES and stored.is_contiguous() and stored.device.type == "cpu"


def code_of(stored: Tensor) -> int:
    """The number of its dtype."""
    return _CODES[stored.dtype]
