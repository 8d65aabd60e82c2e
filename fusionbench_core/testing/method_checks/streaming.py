"""Locality, memory, reading, speed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.picture import OUTPUTS, assert_same, isolated

if TYPE_CHECKING:
    from torch import Tensor

    from fusionbench_core.pools import ModelPool
    from fusionbench_core.testing.zoo import Case

BASELINES = "FB_SPEED_BASELINE"
"""Environment variable: the JSON file in which times per parameter are kept."""

_MIB = 2**20

_SIZES = (8, 32, 192)
"""Tensors of a model to warm up with, of a small one (1 MiB), and of one that shows in memory (6 MiB)."""

_SLACK = _MIB
"""Bytes by which the allocator may waver from one merge to the next."""

_PATIENCE = 5.0
"""Seconds of processor time after which a merge is too slow for such a model."""


@check("FM-401", requires=("FM-301",))
def locality(subject: MethodSubject) -> None:
    """What is computed for one tensor depends on that tensor only, or on its layer, as declared.

    The engine streams, cuts, and resumes by the declared locality.

    Fix: declare `locality="layer"` or `"model"`; a tensor method gathers what it needs of whole models in
    a survey.
    """
    declared = subject.capabilities
    if declared.locality == "model" or declared.surveys or declared.statistics:
        raise Inapplicable("it declares that it looks at whole models")
    case = subject.case("vit_tiny" if declared.locality == "layer" else "mlp")
    wanted = isolated(subject, case) if declared.locality == "layer" else subject.pictured
    first = next(iter(case.models))
    for key in _probed(case, declared.locality):
        changed = case.changed(
            lambda model, name, tensor, key=key: tensor + 1 if (model, name) == (first, key) else tensor
        )
        found = isolated(subject, changed)
        elsewhere = [n for n in wanted if not n.startswith(OUTPUTS) and not _belongs(n, key, subject)]
        what = f"its locality is {declared.locality!r}, and another {key} in {first} changes other tensors"
        assert_same({n: found[n] for n in elsewhere if n in found}, {n: wanted[n] for n in elsewhere}, what)


@check("FM-402", level="full")
def memory(subject: MethodSubject) -> None:
    """Memory does not grow with the model.

    Models larger than the memory of the machine are merged every day.

    Fix: keep nothing of a group after `merge` returned; a survey keeps numbers, not tensors.
    """
    from fusionbench_core.allocator import freed_memory_given_back
    from fusionbench_core.engine.options import EngineOptions
    from fusionbench_core.engine.plan import make_plan
    from fusionbench_core.testing.artefacts import takes_base
    from fusionbench_core.testing.lazy import large_pool
    from fusionbench_core.testing.memory import anonymous_memory, peak_growth

    subject.needs_streaming()
    if anonymous_memory() is None:
        raise Inapplicable("this system does not say how much anonymous memory a process has")
    warm, small, large = (large_pool(subject.count(), n, base=takes_base(subject)) for n in _SIZES)
    plan = make_plan(subject.method(large.names), large, EngineOptions(threads=1))
    with freed_memory_given_back():
        stream(subject, warm, patience=_PATIENCE)
        # What waits in the engine's queue depends on timing: the most that a small model takes is the
        # measure, and of the large one the least, since what a method keeps of it is there every time.
        # One of each decides for nearly all methods; more can only raise the one and lower the other.
        # Who needs a third of the time for a sixth of the model would need twice the time for all of it.
        scratch = peak_growth(lambda: stream(subject, small, patience=_PATIENCE / 3))
        before, grown = anonymous_memory() or 0, []
        for _ in range(3):
            held = (anonymous_memory() or 0) - before
            grown.append(held + peak_growth(lambda: stream(subject, large, patience=_PATIENCE)))
            allowed = max(plan.peak_bytes, scratch) + _SLACK
            if min(grown) <= allowed:
                return
            scratch = max(scratch, peak_growth(lambda: stream(subject, small, patience=_PATIENCE)))
        raise Violation(
            f"merging {len(large)} models of {plan.write_bytes / _MIB:.0f} MiB takes more memory than "
            f"merging models of {plan.write_bytes * _SIZES[1] / _SIZES[2] / _MIB:.0f} MiB",
            measured=f"{min(grown) / _MIB:.0f} MiB",
            bound=f"{allowed / _MIB:.0f} MiB",
        )


@check("FM-403")
def reads_once(subject: MethodSubject) -> None:
    """Every tensor is read once a pass, and there are as many passes as declared.

    The plan tells users how much will be read, and reading is what large merges wait for.

    Fix: set `surveys` in the capabilities to the largest number of rounds that `survey()` takes.
    """
    from fusionbench_core.testing.artefacts import fuse_pool, pool_for
    from fusionbench_core.testing.lazy import ReadPool

    subject.needs_streaming()
    case, passes = subject.case(), 1 + subject.capabilities.surveys
    with tempfile.TemporaryDirectory() as scratch:
        pool = ReadPool(pool_for(subject, case, Path(scratch)))
        fuse_pool(subject, pool, case.tasks)
    readers = {**pool.readers, **({"the base": pool.base_reader} if pool.base_reader else {})}
    for model, reader in readers.items():
        for key, entries in reader.entries.items():
            if entries > passes * reader.info(key).numel:
                raise Violation(
                    f"{key} of {model} is read more often than declared",
                    measured=f"{entries / reader.info(key).numel:g} times",
                    bound=f"{passes} times: one merge and {passes - 1} surveys",
                    false_declaration=True,
                )


@check("FM-404")
def lazy_handles(subject: MethodSubject) -> None:
    """It works tensor by tensor on lazy checkpoints, unless it declares that it needs whole models.

    A live module or a state dict of every model is what runs out of memory.

    Fix: read one tensor of all models at a time, `job.pool.checkpoint(name).tensor(key)`, or declare
    `locality="model"`.
    """
    from fusionbench_core.testing.artefacts import fuse_pool, pool_for
    from fusionbench_core.testing.lazy import ReadPool

    declared = subject.capabilities
    if declared.locality == "model" or declared.statistics:
        raise Inapplicable("it declares that it looks at whole models")
    case = subject.case("vit_tiny")
    with tempfile.TemporaryDirectory() as scratch:
        pool = ReadPool(pool_for(subject, case, Path(scratch)))
        fuse_pool(subject, pool, case.tasks, threads=1)
    what = f"its locality is {declared.locality!r}, and it"
    if pool.built:
        raise Violation(f"{what} asks for a live module of {', '.join(pool.built)}")
    for model, reader in pool.readers.items():
        if reader.held == 1:
            raise Violation(f"{what} holds all tensors of {model} at the same time")


@check("FM-406", required=False, level="full")
def speed(subject: MethodSubject) -> None:
    """It takes no more than three times as long as when it was last measured.

    Slow-downs come in small steps, and nobody notices the sum. Name a JSON file in the environment
    variable `FB_SPEED_BASELINE`: a method that is not in it yet is measured and noted there.

    Fix: look at what changed; if the time is well spent, take the method's line out of the file.
    """
    from fusionbench_core.testing.artefacts import takes_base
    from fusionbench_core.testing.lazy import large_pool

    subject.needs_streaming()
    file = os.environ.get(BASELINES)
    if not file:
        raise Inapplicable(f"there is nothing to compare with: {BASELINES} is not set")
    pool = large_pool(subject.count(), 16, base=takes_base(subject))
    took = _best_time(lambda: stream(subject, pool, patience=_PATIENCE))
    parameters = sum(
        pool.reference_model.checkpoint.info(key).numel for key in pool.reference_model.checkpoint
    )
    nanoseconds = round(1e9 * took / parameters, 2)
    said = f"{nanoseconds:g} ns a parameter"
    before = _noted(Path(file), subject.name, nanoseconds)
    if before is None:
        raise Inapplicable(f"{said}, noted in {file}")
    if nanoseconds > 3 * before:
        raise Violation("it became slow", measured=said, bound=f"{3 * before:g}, three times {before:g}")


def _probed(case: Case, locality: str) -> list[str]:
    """Tensors to change: the first, the last and one in between, of those that lie in layers if need be."""
    from fusionbench_core.layers import layer_of

    names = [
        name
        for name, tensor in case.base.state_dict().items()
        if tensor.is_floating_point() and (locality != "layer" or layer_of(name) is not None)
    ]
    return [names[0], names[len(names) // 2], names[-1]]


def _belongs(output: str, key: str, subject: MethodSubject) -> bool:
    """Whether an output tensor may depend on the tensor `key` of the models."""
    from fusionbench_core.layers import layer_of

    if subject.capabilities.locality == "layer":
        return layer_of(output) == layer_of(key)
    if subject.gives_weights:
        return output == key
    return output.startswith(key.rpartition(".")[0])


class _Nowhere:
    """A sink that keeps nothing, and that stops taking after so many seconds of processor time."""

    def __init__(self, patience: float | None) -> None:
        self._end = None if patience is None else time.process_time() + patience

    def write(self, name: str, start: int, values: Tensor) -> None:
        if self._end is not None and time.process_time() > self._end:
            raise Inapplicable("it is too slow to merge a model that is large enough to tell")

    def read(self, name: str) -> Tensor:
        raise NotImplementedError


def stream(subject: MethodSubject, pool: ModelPool, *, patience: float | None = None) -> None:
    """Merge a pool, and keep nothing of the result."""
    from fusionbench_core.engine.merge import StreamingMerge
    from fusionbench_core.engine.options import EngineOptions
    from fusionbench_core.engine.plan import make_plan
    from fusionbench_core.methods import TensorMethod

    method, options = subject.method(pool.names), EngineOptions(threads=1)
    assert isinstance(method, TensorMethod)
    plan = make_plan(method, pool, options)
    StreamingMerge(method, plan, pool, _Nowhere(patience), options=options).run()


def _best_time(work: Callable[[], object]) -> float:
    """Seconds that `work()` takes at best of three times; of one where that is a second or more."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 1:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _noted(file: Path, name: str, nanoseconds: float) -> float | None:
    """The time noted for a method; None if there is none, and then this one is noted."""
    notes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if name in notes:
        return float(notes[name])
    file.write_text(json.dumps({**notes, name: nanoseconds}, indent=2) + "\n", encoding="utf-8")
    return None
