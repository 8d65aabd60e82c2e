"""A checkpoint under other names, or a part of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo


class RenamedCheckpoint(Checkpoint):
    """View of `inner` whose names went through `rename`; names mapped to None are left out.

    >>> vision = RenamedCheckpoint(clip, lambda key: key.removeprefix("vision.") if ... else None)
    """

    def __init__(self, inner: Checkpoint, rename: Callable[[str], str | None]) -> None:
        self._inner = inner
        self._names = {new: old for old in inner if (new := rename(old)) is not None}
        self.location = inner.location

    def keys(self) -> tuple[str, ...]:
        return tuple(self._names)

    def info(self, key: str) -> TensorInfo:
        return self._inner.info(self._names[key])

    def tensor(self, key: str) -> Tensor:
        return self._inner.tensor(self._names[key])

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        return self._inner.chunk(self._names[key], start, stop)

    @property
    def aliases(self) -> Mapping[str, str]:
        outer = {old: new for new, old in self._names.items()}
        return {
            outer[alias]: outer[kept]
            for alias, kept in self._inner.aliases.items()
            if alias in outer and kept in outer
        }

    def identity(self) -> str:
        return f"{self._inner.identity()}:{hash_names(self._names)}"


def hash_names(names: Mapping[str, str]) -> str:
    """Short stable hash of a renaming."""
    import hashlib

    text = "\n".join(f"{new}\t{old}" for new, old in names.items())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
