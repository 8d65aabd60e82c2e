"""Models that are only looked at: large ones that take no memory, and ones that note how they are read."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fusionbench_core.checkpoints import Checkpoint, TensorInfo
from fusionbench_core.pools import ModelPool, PooledModel

ROWS, COLUMNS = 8, 1024
"""Shape of each tensor of a large model, unless another one is asked for."""


class LargeModel(Checkpoint):
    """A model of many matrices of one shape in fp32, all cut from one stretch of random numbers.

    Reading takes no memory, as from a mapped file, so all that is allocated is the method's or the engine's.

    Args:
        number: Which model of a pool this is; 0 for the base.
        tensors: Number of matrices.
        shape: Shape of each.
    """

    def __init__(self, number: int, tensors: int, shape: tuple[int, int] = (ROWS, COLUMNS)) -> None:
        self._number, self._shape = number, shape
        self._keys = tuple(f"layers.{index}.weight" for index in range(tensors))
        self._offsets = {key: 7 * number + 31 * index for index, key in enumerate(self._keys)}
        size = math.prod(shape) + max(self._offsets.values(), default=0)
        generator = torch.Generator().manual_seed(5)
        self._values = 0.02 * torch.randn(size, generator=generator, dtype=torch.float32)

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        return TensorInfo(self._shape, torch.float32)

    def tensor(self, key: str) -> Tensor:
        start = self._offsets[key]
        return self._values[start : start + math.prod(self._shape)].view(self._shape)

    def identity(self) -> str:
        return f"large model {self._number} of {len(self._keys)} tensors {self._shape}"


def large_pool(
    count: int, tensors: int, *, base: bool = True, shape: tuple[int, int] = (ROWS, COLUMNS)
) -> ModelPool:
    """A pool of `count` large models."""
    models = {
        f"model_{number}": PooledModel(f"model_{number}", content=LargeModel(number, tensors, shape))
        for number in range(1, count + 1)
    }
    return ModelPool(models, PooledModel("_base_", content=LargeModel(0, tensors, shape)) if base else None)


class Reader(Checkpoint):
    """Another checkpoint, and how it is read.

    Attributes:
        entries: Name -> entries read of it so far, each time counted.
        held: Largest share of the floating tensors that somebody held at one time.
    """

    def __init__(self, inner: Checkpoint) -> None:
        self._inner = inner
        self.location = inner.location
        self.entries: Counter[str] = Counter()
        self.held = 0.0
        self._lock = threading.Lock()
        self._storages: dict[str, list[StorageWeakRef]] = {}
        self._watched = {
            key
            for key in inner
            if inner.info(key).is_floating and inner.info(key).numel and key not in inner.aliases
        }

    def keys(self) -> tuple[str, ...]:
        return self._inner.keys()

    def info(self, key: str) -> TensorInfo:
        return self._inner.info(key)

    def tensor(self, key: str) -> Tensor:
        return self._handed_out(key, self._inner.tensor(key))

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        return self._handed_out(key, self._inner.chunk(key, start, stop))

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._inner.aliases

    def identity(self) -> str:
        return self._inner.identity()

    def _handed_out(self, key: str, tensor: Tensor) -> Tensor:
        # A copy has a storage of its own, which lives as long as somebody holds it or a view of it.
        copy = tensor.clone()
        with self._lock:
            self.entries[key] += copy.numel()
            if key in self._watched and copy.numel():
                self._storages.setdefault(key, []).append(StorageWeakRef(copy.untyped_storage()))
            held = sum(not all(each.expired() for each in copies) for copies in self._storages.values())
            self.held = max(self.held, held / len(self._watched))
        return copy


class ReadPool(ModelPool):
    """A pool whose models are read through a :class:`Reader` each.

    Attributes:
        readers: Model name -> reader.
        base_reader: The base's, if there is one.
        built: Names of the models that live modules were asked of.
    """

    def __init__(self, pool: ModelPool) -> None:
        super().__init__(pool.models, pool.base)
        self.readers = {name: _read_through(model) for name, model in pool.models.items()}
        self.base_reader = _read_through(pool.base) if pool.base else None
        self.built: list[str] = []

    def checked(self) -> ModelPool:
        return self

    def module(self, name: str | None = None) -> nn.Module:
        if name is not None:
            self.built.append(name)
        return super().module(name)


def _read_through(model: PooledModel) -> Reader:
    model.checkpoint = reader = Reader(model.checkpoint)
    return reader
