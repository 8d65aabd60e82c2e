"""Two checkpoints seen as one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionbench_core import Checkpoint, TensorInfo


class JoinedCheckpoint(Checkpoint):
    """The tensors of `first`, then those of `second` whose names `first` does not have."""

    def __init__(self, first: Checkpoint, second: Checkpoint) -> None:
        self._parts = (first, second)
        self._owner = {key: part for part in (second, first) for key in part}
        self._keys = (*first.keys(), *(key for key in second if key not in first))
        self.location = first.location

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        return self._owner[key].info(key)

    def tensor(self, key: str) -> Tensor:
        return self._owner[key].tensor(key)

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        return self._owner[key].chunk(key, start, stop)

    @property
    def aliases(self) -> Mapping[str, str]:
        first, second = self._parts
        return {**second.aliases, **first.aliases}

    def identity(self) -> str:
        return "+".join(part.identity() for part in self._parts)
