"""One model's piece of a tensor: as it is stored, and as numbers to compute with."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from fusionbench_core.methods.arithmetic import subtract, widen


class Operand:
    """A piece that is read when it is needed, and not copied where arithmetic can do without.

    Args:
        read: Gives the piece as it is stored, flat; it may be a view of a file and is not written to.
        dtype: What to compute in.
        shape: Shape of the piece.
        check: Called with the stored piece when it may hold NaN or Inf; raises if it does.
    """

    def __init__(
        self,
        read: Callable[[], Tensor],
        dtype: torch.dtype,
        shape: tuple[int, ...],
        check: Callable[[Tensor], None] = lambda stored: None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._read, self._check = read, check

    def values(self) -> Tensor:
        """A copy to compute with, which is the caller's own."""
        return self._sound(*widen(self.stored, self.dtype))

    def minus(self, base: Tensor, out: Tensor | None = None) -> Tensor:
        """The difference from `base`, a new tensor unless there is one to overwrite."""
        if out is None:
            dtype = torch.promote_types(self.dtype, base.dtype)
            out = torch.empty(self.shape, dtype=dtype, device=base.device)
        return self._sound(out, subtract(self.stored, base.reshape(-1), out.view(-1)))

    def add_to(self, total: Tensor, weight: float, scratch: Tensor) -> None:
        """Add it `weight` times to `total`, in place; NaN and Inf are looked for by the caller."""
        total.view(-1).add_(scratch.view(-1).copy_(self.stored), alpha=weight)

    def check(self) -> None:
        """Raise NonFiniteInput if the piece holds NaN or Inf."""
        self._check(self.stored)

    def first_part(self, share: int) -> Operand:
        """The first of `share` equal parts of the piece, flat; its last one may be shorter."""
        count = -(-math.prod(self.shape) // share)
        return Operand(lambda: self.stored[:count], self.dtype, (count,), self._check)

    @cached_property
    def stored(self) -> Tensor:
        """The piece as it is stored, flat; not to be written to."""
        return self._read()

    def _sound(self, result: Tensor, finite: bool) -> Tensor:
        # NaN and Inf of an operand are in the result, which is looked at while it is in the cache.
        if not finite:
            self.check()
        return result.view(self.shape)
