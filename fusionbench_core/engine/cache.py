"""Tensors that are slow to compute, kept on disk from run to run under a hash of all they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusionbench_core import __version__
from fusionbench_core.checkpoints import SafetensorsCheckpoint
from fusionbench_core.checkpoints.checkpoint import hash_tensor
from fusionbench_core.checkpoints.writer import write_safetensors
from fusionbench_core.errors import FusionError
from fusionbench_core.places import cache_dir

_WORTH = 1 << 16
"""Entries of a tensor from which on keeping it can pay: factorising 256 x 256 takes as long as writing it."""

_TENSOR = "tensor"


class TensorCache:
    """Files of one tensor each, which together take no more than `limit` bytes.

    What was used longest ago makes room, but nothing that this cache has used itself: a sweep over more than
    fits would else throw away each tensor just before it is asked for. A file is written under another name
    and renamed; one that cannot be read is computed anew. Any number of threads and processes may share it.

    Args:
        directory: Existing directory.
        limit: Bytes of all files together.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory, self._limit = directory, limit
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._used: set[str] = set()

    @classmethod
    def of_user(cls, limit: int) -> TensorCache | None:
        """The one in the user's cache; None if it may take nothing, or cannot be made."""
        try:
            return cls(cache_dir("tensors"), limit) if limit else None
        except OSError:
            return None

    def get(
        self,
        facts: Mapping[str, Any],
        packages: Iterable[str],
        inputs: Sequence[Tensor],
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """What `compute()` gives, or gave for the same facts and inputs; the same bits either way.

        Args:
            facts: JSON-able; all that decides the result, beside the inputs, the code and the machine.
            packages: Where the code is.
            inputs: Of one shape.
            compute: Gives the tensor.
        """
        if inputs[0].numel() < _WORTH:
            return compute()
        path = self._directory / f"{_key(facts, packages, inputs)}.safetensors"
        self._used.add(path.name)
        known = _read(path)
        return self._keep(path, compute()) if known is None else known

    def _keep(self, path: Path, tensor: Tensor) -> Tensor:
        with self._lock:
            if path.name in self._busy or not self._make_room(tensor.nbytes):
                return tensor
            self._busy.add(path.name)
            self._sizes[path.name] = tensor.nbytes
        try:
            write_safetensors(path, {_TENSOR: tensor})
        except (FusionError, OSError):
            path.unlink(missing_ok=True)
        finally:
            self._busy.discard(path.name)
        return tensor

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit now, after removing what was used longest ago."""
        used = sum(self._sizes.values())
        for name in [name for name in self._sizes if name not in self._used]:
            if used + size <= self._limit:
                break
            (self._directory / name).unlink(missing_ok=True)
            used -= self._sizes.pop(name)
        return used + size <= self._limit

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Bytes of each file, that used longest ago first."""
        found = []
        for path in self._directory.glob("*.safetensors"):
            try:
                found.append((path.stat().st_mtime, path.name, path.stat().st_size))
            except OSError:  # Another process made room.
                continue
        return {name: size for _, name, size in sorted(found)}


def _read(path: Path) -> Tensor | None:
    try:
        os.utime(path)
        return SafetensorsCheckpoint([path]).tensor(_TENSOR)
    except (FusionError, OSError, KeyError, ValueError):
        path.unlink(missing_ok=True)
        return None


def _key(facts: Mapping[str, Any], packages: Iterable[str], inputs: Sequence[Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(_platform().encode())
    for package in sorted(packages):
        digest.update(_code(package))
    for tensor in inputs:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(hash_tensor(tensor))
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _platform() -> str:
    """What else a factorisation's last bits depend on: the libraries and the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    parts = (__version__, torch.__version__, torch.backends.cpu.get_cpu_capability(), processor)
    return "|".join((*parts, torch.__config__.show()))


@lru_cache(maxsize=16)
def _code(package: str) -> bytes:
    """Hash of a package's source, so that whoever changes a method never sees what the old one gave."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return b""
    root = Path(file)
    digest = hashlib.sha256()
    for path in sorted(root.parent.rglob("*.py")) if root.name == "__init__.py" else [root]:
        digest.update(path.read_bytes())
    return digest.digest()
