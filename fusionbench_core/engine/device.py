"""Where pieces are computed: on the CPU, or on a GPU that they are moved to and back from."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.workers import MemoryGate
from fusionbench_core.errors import ConfigError, InsufficientResources
from fusionbench_core.methods.method import Method

_SHARE = 0.8
"""Of the free memory of a GPU; libraries take workspaces of their own."""

Result = TypeVar("Result")


class Device:
    """One device, used by several threads.

    On a GPU each thread has a stream of its own, and moves its pieces through pinned memory: while one
    computes, another one reads, and a third copies. On the CPU nothing is moved.

    Args:
        device: The CPU, or a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._own = threading.local()
        self._gate = MemoryGate(int(_SHARE * torch.cuda.mem_get_info(device)[0]) if self._cuda else None)

    def put(self, stored: Tensor) -> Tensor:
        """A piece as it is stored, on the device."""
        if not self._cuda:
            return stored
        pinned = torch.empty(stored.shape, dtype=stored.dtype, pin_memory=True).copy_(stored)
        return pinned.to(self._device, non_blocking=True)

    def get(self, result: Tensor) -> Tensor:
        """A result in the memory of the CPU, complete."""
        if result.device.type != "cuda":
            return result
        pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        pinned.copy_(result, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return pinned

    def compute(self, work: Callable[[], Result], size: int) -> Result:
        """`work()` in this thread's stream, once the device has `size` bytes for it.

        Raises:
            InsufficientResources: if the device runs out of memory.
        """
        if not self._cuda:
            return work()
        with self._gate.hold(size), self._stream():
            try:
                return work()
            except torch.OutOfMemoryError as error:
                raise InsufficientResources(
                    f"{self._device} has too little memory",
                    why=f"{str(error).splitlines()[0]} About {size / 1e9:.2f} GB were expected",
                    fix="compute on the CPU: engine.device=cpu",
                ) from error

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._own.stream):
            yield


def device_for(method: Method, options: EngineOptions) -> torch.device:
    """Where a method merges: on the device of the options, if it can compute there."""
    return options.device if method.capabilities.device == "any" else torch.device("cpu")


def named_device(wanted: str) -> torch.device:
    """The device that a config names.

    Args:
        wanted: `cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one.

    Raises:
        ConfigError: if it is another word.
        InsufficientResources: if there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise ConfigError(
            f"{wanted!r} is no device that merging can use",
            config="engine.device",
            fix="use cpu, cuda, cuda:1 for the second GPU, or auto for a GPU if there is one",
        )
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda" if wanted == "auto" else wanted)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise InsufficientResources(
            f"there is no device {wanted}",
            why=f"torch {torch.__version__} sees {count or 'no'} CUDA device{'s' if count > 1 else ''} here",
            config="engine.device",
            fix="use engine.device=cpu, or auto: a GPU where there is one",
        )
    return device
