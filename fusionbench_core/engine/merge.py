"""Merge by streaming: read a piece of every model, merge it, write it; survey first if asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionbench_core.allocator import freed_matrices_given_back
from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.checkpoints.checksum import add_checksums, checksum
from fusionbench_core.dtypes import accumulation_dtype, dtype_name
from fusionbench_core.engine.cache import TensorCache
from fusionbench_core.engine.device import Device, device_for
from fusionbench_core.engine.integers import differs
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.pieces import Piece, cut
from fusionbench_core.engine.plan import Plan
from fusionbench_core.engine.sink import Sink
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.engine.workers import MemoryGate, Workers
from fusionbench_core.errors import FusionError, MethodError, NonFiniteInput
from fusionbench_core.methods.arithmetic import narrow
from fusionbench_core.methods.group import TensorGroup
from fusionbench_core.methods.method import TensorMethod
from fusionbench_core.methods.operand import Operand
from fusionbench_core.methods.survey import Survey
from fusionbench_core.native import expected
from fusionbench_core.pools.pool import ModelPool

Statistics = Mapping[str, Sequence[Mapping[str, Tensor] | Checkpoint]]
"""Statistic name -> one mapping of tensor names a model, in plan order."""


class StreamingMerge:
    """One merge of a pool by a tensor method.

    Args:
        method: What to do with each group of tensors.
        plan: What to do with each tensor.
        pool: Where the tensors come from.
        sink: Where the result goes.
        options: Threads, dtypes, rules.
        seed: Keys all random numbers.
        statistics: What the method's statistics gave, by name.
    """

    def __init__(
        self,
        method: TensorMethod,
        plan: Plan,
        pool: ModelPool,
        sink: Sink,
        *,
        options: EngineOptions,
        seed: int = 0,
        statistics: Statistics | None = None,
    ) -> None:
        self._method, self._plan, self._sink, self._options, self._seed = method, plan, sink, options, seed
        self._models = {name: pool[name].checkpoint for name in plan.models}
        self._base = pool.base.checkpoint if pool.base else None
        self._first = pool.names[0]
        self._statistics = statistics or {}
        whole = plan.locality not in ("element", "row")
        self._cache = TensorCache.of_user(options.cache_size) if whole else None
        self._gate = MemoryGate(options.memory_budget)
        self._where = device_for(method, options)
        self._device = Device(self._where)
        self._dtypes = {step.name: self._work_dtype(step.name) for step in plan if step.action == "merge"}

    def run(
        self,
        on_step: Callable[[PlanStep, int], None] = lambda step, checksum: None,
        on_survey: Callable[[int, int], None] = lambda done, total: None,
        done: Iterable[str] = (),
    ) -> None:
        """Survey, then merge every tensor that is not in `done`.

        `on_step(step, checksum)` is called in the caller's thread when a tensor is written.

        Raises:
            NonFiniteInput: naming model and tensor.
            IncompatibleModels: if integer tensors differ and no rule is given.
            MethodError: if the method fails, or gives another shape or NaN.
        """
        done = set(done)
        with expected(self._left(done)), self._allocation(), Workers(self._options.threads) as workers:
            survey = self._run_survey(self._method.survey(), workers, on_survey)
            pieces = (
                p
                for s in self._plan
                if s.name not in done
                for p in cut(s, self._plan.locality, self._plan.piece)
            )
            total = 0
            for piece, part in workers.map(partial(self._merge, survey), pieces, _entries):
                total = part if piece.start == 0 else add_checksums(total, part)
                if piece.last:
                    on_step(piece.step, total)

    def survey(self, state: Survey, on_survey: Callable[[int, int], None] = lambda done, total: None) -> Any:
        """Run a survey alone; nothing is merged or written.

        Raises:
            NonFiniteInput: naming model and tensor.
            MethodError: if the survey fails.
        """
        with self._allocation(), Workers(self._options.threads) as workers:
            return self._run_survey(state, workers, on_survey)

    def _left(self, done: set[str]) -> int:
        """Entries of all models that are still to be merged."""
        left = (step.info.numel for step in self._plan if step.action == "merge" and step.name not in done)
        return sum(left) * len(self._models)

    def _allocation(self) -> AbstractContextManager[None]:
        return nullcontext() if self._plan.locality in ("element", "row") else freed_matrices_given_back()

    def _run_survey(self, state: Any, workers: Workers, on_survey: Callable[[int, int], None]) -> Any:
        steps = [step for step in self._plan if step.action == "merge"]
        while isinstance(state, Survey):
            total, count = None, 0
            pieces = (piece for step in steps for piece in cut(step, self._plan.locality, self._plan.piece))
            for piece, seen in workers.map(partial(self._observe, state), pieces, _entries):
                total = seen if total is None else total + seen
                if piece.last:
                    count += 1
                    on_survey(count, len(steps))
            state = state.advance(total)
        return state

    def _observe(self, survey: Survey, piece: Piece) -> Any:
        with self._gate.hold(self._plan.needs[piece.step.name]):
            return self._computed(piece, lambda: survey.observe(self._group(piece, None)))

    def _merge(self, survey: Any, piece: Piece) -> int:
        """Merge and write one piece; gives its share of the tensor's checksum."""
        with self._gate.hold(self._plan.needs[piece.step.name]):
            values = self._values(piece, survey)
            self._sink.write(piece.step.name, piece.start, values)
            return checksum(values, piece.start)

    def _values(self, piece: Piece, survey: Any) -> Tensor:
        """The piece of the output, flat, in its dtype."""
        if piece.step.action == "copy":
            return self._cast(piece, self._source(piece).chunk(piece.step.name, piece.start, piece.stop))
        if piece.step.action == "equal":
            return self._agreed(piece)

        def merged() -> Tensor:
            return self._device.get(self._checked(piece, self._method.merge(self._group(piece, survey))))

        return self._computed(piece, merged)

    def _group(self, piece: Piece, survey: Any) -> TensorGroup:
        name, step = piece.step.name, piece.step
        models = [self._operand(model, checkpoint, piece) for model, checkpoint in self._models.items()]
        base = None if self._base is None else self._operand("the base", self._base, piece)
        return TensorGroup(
            name=name,
            shape=step.info.shape,
            start=piece.start,
            names=self._plan.models,
            models=models,
            base=base,
            seed=self._seed,
            survey=survey,
            statistics={
                key: [self._found(one, name) for one in each] for key, each in self._statistics.items()
            },
            layer=step.layer,
            layers=step.layers,
            cache=self._cache,
            device=self._where,
        )

    def _operand(self, model: str, checkpoint: Checkpoint, piece: Piece) -> Operand:
        name = piece.step.name

        def check(stored: Tensor) -> None:
            bad = int((~_finite(stored)).sum())
            if bad and self._options.check_finite:
                raise NonFiniteInput(
                    f"{bad} of {stored.numel()} entries read are NaN or Inf",
                    model=model,
                    tensor=name,
                    file=checkpoint.location,
                    fix="repair or leave out this model; `engine.check_finite=false` merges it as it is",
                )

        def read() -> Tensor:
            return self._device.put(checkpoint.chunk(name, piece.start, piece.stop))

        return Operand(read, self._dtypes[name], piece.shape, check)

    def _checked(self, piece: Piece, merged: Any) -> Tensor:
        if not isinstance(merged, Tensor) or tuple(merged.shape) != piece.shape:
            got = list(merged.shape) if isinstance(merged, Tensor) else type(merged).__name__
            raise self._failed(piece, f"it gave {got} where {list(piece.shape)} was expected")
        return self._cast(piece, merged.reshape(-1))

    def _cast(self, piece: Piece, values: Tensor) -> Tensor:
        dtype = piece.step.info.dtype
        result, finite = narrow(values, dtype)
        if self._options.check_finite and dtype.is_floating_point and not (finite or _is_finite(result)):
            if bool(torch.isfinite(values).all()):
                raise MethodError(
                    f"the merged values overflow {dtype_name(dtype)}",
                    tensor=piece.step.name,
                    fix="set engine.dtype to bfloat16 or float32",
                )
            if piece.step.action == "merge":
                raise self._failed(piece, "it gave NaN or Inf for finite inputs")
        return result

    def _agreed(self, piece: Piece) -> Tensor:
        """Integer and boolean tensors: equal in all models, or decided by the rule."""
        name, rule = piece.step.name, self._options.integers
        each = {model: c.chunk(name, piece.start, piece.stop) for model, c in self._models.items()}
        base = self._base.chunk(name, piece.start, piece.stop) if self._base is not None else None
        values = list(each.values()) if base is None else [base, *each.values()]
        if all(torch.equal(values[0], other) for other in values[1:]):
            result = values[0]
        elif rule == "base" and base is not None:
            result = base
        elif rule in ("first", "base"):
            result = each[self._first]
        elif rule == "max":
            result = torch.stack([v.to(piece.step.info.dtype) for v in values]).amax(0)
        else:
            differing = [model for model, value in each.items() if not torch.equal(value, values[0])]
            raise differs({f"{dtype_name(piece.step.info.dtype)} tensor {name}": differing})
        return result.to(piece.step.info.dtype)

    def _work_dtype(self, name: str) -> torch.dtype:
        """One dtype for all models: with one each, sums would round by the order of the models."""
        checkpoints = [*self._models.values(), *([self._base] if self._base is not None else [])]
        each = [accumulation_dtype(c.info(name).dtype, self._options.accumulate) for c in checkpoints]
        return max(each, key=lambda dtype: dtype.itemsize)

    def _source(self, piece: Piece) -> Checkpoint:
        source = piece.step.source
        if source is not None:
            return self._models[source]
        assert self._base is not None
        return self._base

    def _found(self, values: Mapping[str, Tensor] | Checkpoint, name: str) -> Tensor | None:
        value = _find(values, name)
        return None if value is None else self._device.put(value)

    def _computed(self, piece: Piece, work: Callable[[], Any]) -> Any:
        try:
            return self._device.compute(work, self._plan.needs[piece.step.name])
        except FusionError as error:
            error.where.setdefault("tensor", piece.step.name)
            raise
        except Exception as error:
            raise self._failed(piece, f"{type(error).__name__}: {error}") from error

    def _failed(self, piece: Piece, why: str) -> MethodError:
        record = self._method.record
        origin = record.origin
        return MethodError(
            f"{record.full_name} failed",
            tensor=f"{piece.step.name} {piece.step.info}",
            plugin=f"{origin.distribution} {origin.version}" if origin else None,
            why=why,
            fix="report this to the authors of the plugin; FB_DEBUG=1 shows where it happened",
        )


def _entries(piece: Piece) -> int:
    return piece.stop - piece.start


def _find(values: Mapping[str, Tensor] | Checkpoint, name: str) -> Tensor | None:
    if name not in values:
        return None
    return values.tensor(name) if isinstance(values, Checkpoint) else values[name]


def _is_finite(values: Tensor) -> bool:
    return bool(_finite(values).all())


def _finite(values: Tensor) -> Tensor:
    return torch.isfinite(values.float() if values.dtype.itemsize == 1 else values)
