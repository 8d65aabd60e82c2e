"""The contract of a checkpoint: an ordered, lazy, read-only mapping of names to tensors."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fusionbench_core.dtypes import dtype_name

_HASH_CHUNK = 1 << 22


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor, known without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    @property
    def is_floating(self) -> bool:
        return self.dtype.is_floating_point

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}{list(self.shape)}"


class Checkpoint(ABC):
    """Ordered names with shapes and dtypes; tensors are read on demand, from any thread.

    Tensors handed out are read-only by contract: they may be views of a mapped file or of the user's
    own module. Whoever wants to write takes a copy.
    """

    location: str = "memory"
    """Where it comes from, for messages."""

    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """All names in file order, tied names included."""

    @abstractmethod
    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of a tensor; reads no tensor data."""

    @abstractmethod
    def tensor(self, key: str) -> Tensor:
        """The whole tensor, without a copy where that is possible."""

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        """Entries `start` to `stop` of the flattened tensor, shape `(stop - start,)`."""
        return self.tensor(key).reshape(-1)[start:stop]

    @property
    def aliases(self) -> Mapping[str, str]:
        """Tied names: name -> the name whose tensor it shares."""
        return {}

    def identity(self) -> str:
        """A cheap key that changes when the content may have changed; sees no tensor data where it can."""
        return self.fingerprint()

    def fingerprint(self) -> str:
        """Hash of names, shapes, dtypes and content, the same whatever the sharding and key order."""
        return content_hash(
            (key, self.info(key), self.aliases[key] if key in self.aliases else hash_tensor(self.tensor(key)))
            for key in self.keys()
        )

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    @cached_property
    def _index(self) -> frozenset[str]:
        return frozenset(self.keys())


def content_hash(entries: Iterable[tuple[str, TensorInfo, bytes | str]]) -> str:
    """Hash of a checkpoint's content from (name, info, SHA-256 of the bytes, or the name it is tied to)."""
    total = hashlib.sha256()
    for name, info, content in sorted(entries, key=lambda entry: entry[0]):
        text = content if isinstance(content, str) else content.hex()
        total.update(f"{name}|{info}|{text}\n".encode())
    return total.hexdigest()


def hash_tensor(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's bytes in C order (processors compute it in hardware)."""
    digest = hashlib.sha256()
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    for start in range(0, raw.numel(), _HASH_CHUNK):
        digest.update(raw[start : start + _HASH_CHUNK].numpy().data)
    return digest.digest()
