"""Count the bytes of tensor data that are read meanwhile, whoever reads them."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from fusionbench_core.checkpoints import Checkpoint


class Reads:
    """What was read: through checkpoints, safetensors' reader, or `torch.load` without a mapped file."""

    def __init__(self) -> None:
        self.bytes = 0
        self._depth = 0

    def counted(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`function`, counting what it gives; what it calls in turn is the same data."""

        def count(*arguments: Any, **options: Any) -> Tensor:
            self._depth += 1
            try:
                tensor = function(*arguments, **options)
            finally:
                self._depth -= 1
            if not self._depth:
                self.bytes += tensor.nbytes
            return tensor

        return count


@contextmanager
def counted_reads() -> Iterator[Reads]:
    """Count in this block. Classes that are made in it are not seen: open once before."""
    reads = Reads()
    with ExitStack() as stack:
        for cls in _subclasses(Checkpoint):
            for name in ("tensor", "chunk"):
                if name in vars(cls):
                    stack.callback(setattr, cls, name, vars(cls)[name])
                    setattr(cls, name, reads.counted(vars(cls)[name]))
        stack.enter_context(_replaced(torch.load, _counting_load(reads)))
        if (safetensors := sys.modules.get("safetensors")) is not None:
            stack.enter_context(
                _replaced(safetensors.safe_open, _counting_open(reads, safetensors.safe_open))
            )
        yield reads


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*(_subclasses(each) for each in cls.__subclasses__()))


@contextmanager
def _replaced(original: Any, other: Any) -> Iterator[None]:
    """`other` in place of `original` in every module that imported it."""
    places = [
        (names, name)
        for names in [getattr(module, "__dict__", {}) for module in list(sys.modules.values())]
        for name, value in list(names.items())
        if value is original
    ]
    for names, name in places:
        names[name] = other
    try:
        yield
    finally:
        for names, name in places:
            names[name] = original


def _counting_load(reads: Reads) -> Callable[..., Any]:
    load = torch.load

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        loaded = load(file, *arguments, **options)
        # Only zip archives can be mapped, so only there is reading all of it a choice.
        if not options.get("mmap") and zipfile.is_zipfile(file) and isinstance(loaded, dict):
            reads.bytes += sum(each.nbytes for each in loaded.values() if isinstance(each, Tensor))
        return loaded

    return counting


def _counting_open(reads: Reads, safe_open: Any) -> type:
    class Slice:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __getitem__(self, places: Any) -> Tensor:
            return reads.counted(self._inner.__getitem__)(places)

    class Opened:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._inner = safe_open(*arguments, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __enter__(self) -> Any:
            self._inner.__enter__()
            return self

        def __exit__(self, *error: Any) -> Any:
            return self._inner.__exit__(*error)

        def get_tensor(self, name: str) -> Tensor:
            return reads.counted(self._inner.get_tensor)(name)

        def get_tensors(self) -> dict[str, Tensor]:
            return {name: self.get_tensor(name) for name in self._inner.keys()}  # noqa: SIM118

        def get_slice(self, name: str) -> Slice:
            return Slice(self._inner.get_slice(name))

    return Opened
