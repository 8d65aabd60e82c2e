"""A few computed tensors, kept for the threads that read the same one piece by piece."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor


class RecentTensors:
    """The last few tensors of a function of a name; each is computed once, whoever asks at the same time.

    Args:
        compute: Name -> tensor. Must be pure.
        size: How many tensors to keep.
    """

    def __init__(self, compute: Callable[[str], Tensor], size: int = 4) -> None:
        self._compute = compute
        self._size = size
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Tensor:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            while len(self._slots) > self._size:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.tensor is None:
                slot.tensor = self._compute(name)
            return slot.tensor


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tensor: Tensor | None = None
