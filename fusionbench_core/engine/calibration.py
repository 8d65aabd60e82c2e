"""How long a merge would take here: the method itself, tried on small random models, and the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusionbench_core import __version__, places
from fusionbench_core.checkpoints import Checkpoint, TensorInfo
from fusionbench_core.checkpoints.checkpoint import hash_tensor
from fusionbench_core.engine.merge import StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.engine.sink import MemorySink
from fusionbench_core.errors import FusionError
from fusionbench_core.methods.method import Method, TensorMethod
from fusionbench_core.pools.pool import ModelPool, PooledModel

_DAY = 24 * 3600
_ENTRIES = 1 << 20
"""Entries that an element-wise method is tried on: beyond the caches, done in a moment."""
_SIDES = (96, 288)
"""Matrices that a method for whole tensors is tried on."""
_FILE = 24 * 2**20
"""Bytes written to try the disk."""
_FASTER, _SLOWER = 0.8, 2.0
"""What arithmetic may take of the time tried: other processes come and go, memory is shared."""
_GAIN = 3.0
"""How much faster per operation large matrices may be than small ones, on the same processor."""


@dataclass(frozen=True)
class Duration:
    """Seconds that a merge takes, from start to end, without the start of the interpreter."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.high < 1:
            return "less than a second"
        return f"{_readable(self.low)} to {_readable(self.high)}"


def estimate(
    method: Method, plan: Plan, pool: ModelPool, options: EngineOptions, output: Path
) -> Duration | None:
    """How long merging by a plan would take; None if the method trains, builds, or needs data first.

    What is measured is kept for a day; measuring takes less than a second.

    Args:
        method: What merges.
        plan: Its plan.
        pool: Its models.
        options: Threads, dtypes.
        output: Where the result goes; the disk is tried in the nearest directory above that exists.
    """
    if not isinstance(method, TensorMethod) or method.capabilities.statistics:
        return None
    try:
        arithmetic = _arithmetic(method, plan, pool, options)
    except (FusionError, ArithmeticError, ValueError, IndexError, RuntimeError):
        return None  # Some parameters fit no other model than the pool's.
    disk = _remembered(f"disk {_device(output)}", lambda: _try_disk(output))
    hashing = plan.write_bytes * disk["hash"] / options.threads
    merged = [step.info for step in plan if step.action == "merge"]
    if plan.locality in ("element", "row"):
        fast = slow = arithmetic["entry"] * sum(info.numel for info in merged)
    else:
        plain = arithmetic["entry"] * sum(info.numel for info in merged)
        cubes = arithmetic["cube"] * sum(_operations(info) for info in merged)
        fast, slow = plain + cubes / _GAIN, plain + cubes
    return Duration(
        low=fast * _FASTER + hashing,
        high=slow * _SLOWER + hashing + plan.read_bytes * disk["read"] + plan.write_bytes * disk["write"],
    )


def _operations(info: TensorInfo) -> float:
    """What factorising a matrix is proportional to: entries times the shorter side, in units of a square one.

    Of a tall or wide one all but a third is saved: it is reduced to a square one first.
    """
    if len(info.shape) != 2 or 0 in info.shape:
        return 0.0
    short, long = sorted(info.shape)
    return info.numel * short * (1 + 2 * short / long) / 3


def _arithmetic(
    method: TensorMethod, plan: Plan, pool: ModelPool, options: EngineOptions
) -> dict[str, float]:
    """Seconds an entry, and seconds an operation of a factorisation."""
    dtypes = [c.info(step.name).dtype for step in plan for c in _checkpoints(pool) if step.action == "merge"]
    dtype = max(set(dtypes), key=dtypes.count, default=torch.float32)
    facts = [
        __version__, method.record.full_name, method.model_dump(mode="json"), list(pool.names),
        str(dtype), str(options.dtype), options.threads,
    ]  # fmt: skip
    if plan.locality in ("element", "row"):
        shapes = [(_ENTRIES // 512, 512)]
    else:
        shapes = [(side, side) for side in _SIDES]

    def tried() -> dict[str, float]:
        _try(method, pool, (64, 64), dtype, options)
        took = [_try(method, pool, shape, dtype, options) for shape in shapes]
        if len(shapes) == 1:
            return {"entry": took[0] / _ENTRIES}
        # Two sizes, two unknowns: seconds = entry * n^2 + cube * n^3.
        (small, large), (short, long) = shapes, took
        cube = max(0.0, (long / large[0] ** 2 - short / small[0] ** 2) / (large[0] - small[0]))
        return {"entry": max(0.0, long / large[0] ** 2 - cube * large[0]), "cube": cube}

    return _remembered(json.dumps(facts, sort_keys=True), tried)


def _try(
    method: TensorMethod, pool: ModelPool, shape: tuple[int, int], dtype: torch.dtype, options: EngineOptions
) -> float:
    """Seconds for one tensor of a shape where all threads have such tensors to do."""
    count = options.threads if shape[0] == shape[1] else 1
    content = {name: _Random(number, count, shape, dtype) for number, name in enumerate(pool.names, start=1)}
    base = PooledModel("_base_", content=_Random(0, count, shape, dtype)) if pool.base else None
    small = ModelPool({name: PooledModel(name, content=each) for name, each in content.items()}, base)
    options = replace(options, cache_size=0, memory_budget=None)
    plan = make_plan(method, small, options)
    started = time.perf_counter()
    StreamingMerge(method, plan, small, MemorySink(plan), options=options).run()
    return (time.perf_counter() - started) / count


class _Random(Checkpoint):
    """Some tensors of one shape near those of the others, all of them the same."""

    def __init__(self, number: int, count: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(number)
        base = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        self._info = TensorInfo(shape, dtype)
        self._values = (0.02 * base).add_(torch.randn(shape, generator=generator), alpha=0.002).to(dtype)
        self._keys = tuple(f"layers.{index}.weight" for index in range(count))

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        return self._info

    def tensor(self, key: str) -> Tensor:
        return self._values

    def identity(self) -> str:
        return ""


def _try_disk(output: Path) -> dict[str, float]:
    """Seconds a byte: to write it down for good, to read it back from the disk, and to hash it."""
    values = torch.arange(_FILE // 8)
    raw = values.numpy().tobytes()
    started = time.perf_counter()
    hash_tensor(values)
    hashed = time.perf_counter() - started
    try:
        with tempfile.TemporaryFile(dir=_nearest(output)) as file:
            started = time.perf_counter()
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter() - started
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            started = time.perf_counter()
            file.seek(0)
            while file.read(2**20):
                pass
            read = time.perf_counter() - started
    except OSError:  # Whether the place can be written to is found out, and told, when it is needed.
        written = read = 0.0
    return {"write": written / _FILE, "read": read / _FILE, "hash": hashed / _FILE}


def _checkpoints(pool: ModelPool) -> list[Checkpoint]:
    return [model.checkpoint for model in (*pool.models.values(), *([pool.base] if pool.base else []))]


def _nearest(output: Path) -> Path:
    return next(path for path in (output, *output.absolute().parents) if path.is_dir())


def _device(output: Path) -> int:
    return _nearest(output).stat().st_dev


def _remembered(what: str, measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """What was measured within a day, or `measure()`."""
    key = hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
    file = os.path.join(places.cache_home(), "calibration", f"{key}.json")
    with contextlib.suppress(OSError, ValueError):
        if time.time() - os.stat(file).st_mtime < _DAY:
            return json.loads(Path(file).read_text(encoding="utf-8"))
    measured = measure()
    with contextlib.suppress(OSError):
        places.write(file, json.dumps(measured))
    return measured


def _readable(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"
