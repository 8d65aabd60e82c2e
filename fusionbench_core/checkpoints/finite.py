"""A checkpoint that gives no NaN and no Inf."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo
from fusionbench_core.errors import NonFiniteInput


def surely_finite(values: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether all values are finite, and small enough for `dtype`; False can also mean a doubt.

    One pass without a temporary: no square is larger than the sum of all squares.

    Args:
        values: fp32 or fp64.
        dtype: What they will be stored in; by default what they are.
    """
    flat = values.reshape(-1)
    squares = torch.dot(flat, flat).item()
    if dtype is None or dtype.itemsize >= values.dtype.itemsize:
        return math.isfinite(squares)
    return squares < torch.finfo(dtype).max ** 2 / 2


class FiniteCheckpoint(Checkpoint):
    """View of `inner`; reading a tensor that holds NaN or Inf fails. Each tensor is looked at once.

    Args:
        model: What to call it in messages.
    """

    def __init__(self, inner: Checkpoint, model: str) -> None:
        self._inner, self._model = inner, model
        self._sound: set[str] = set()
        self.location = inner.location

    def keys(self) -> tuple[str, ...]:
        return self._inner.keys()

    def info(self, key: str) -> TensorInfo:
        return self._inner.info(key)

    def tensor(self, key: str) -> Tensor:
        """The whole tensor.

        Raises:
            NonFiniteInput: naming model and tensor.
        """
        tensor = self._inner.tensor(key)
        if key not in self._sound:
            self._check(key, tensor)
            self._sound.add(key)
        return tensor

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        """Some entries; raises what :meth:`tensor` raises."""
        values = self._inner.chunk(key, start, stop)
        if key not in self._sound:
            self._check(key, values)
        return values

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._inner.aliases

    def identity(self) -> str:
        return self._inner.identity()

    def fingerprint(self) -> str:
        return self._inner.fingerprint()

    def _check(self, key: str, values: Tensor) -> None:
        if not values.is_floating_point() or bool(torch.isfinite(values).all()):
            return
        bad = int((~torch.isfinite(values)).sum())
        raise NonFiniteInput(
            f"{bad} of {values.numel()} entries read are NaN or Inf",
            model=self._model,
            tensor=key,
            file=self.location,
            fix="repair or leave out this model; `engine.check_finite=false` fuses it as it is",
        )
