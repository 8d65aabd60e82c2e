"""The plan: what happens to every tensor, decided from headers and small integers before a weight is read."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from fusionbench_core import __version__
from fusionbench_core.checkpoints import Checkpoint, TensorInfo
from fusionbench_core.dtypes import accumulation_dtype, dtype_name
from fusionbench_core.engine.alignment import Alignment, align
from fusionbench_core.engine.device import device_for
from fusionbench_core.engine.integers import check_integers
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.pieces import piece_numel, piece_size, pieces
from fusionbench_core.engine.problems import Problems
from fusionbench_core.engine.step import Action, PlanStep
from fusionbench_core.errors import InsufficientResources, MissingCapability
from fusionbench_core.layers import count_layers, layer_of, layer_pattern
from fusionbench_core.methods.method import ModelMethod, TensorMethod

if TYPE_CHECKING:
    from fusionbench_core.methods.method import Method
    from fusionbench_core.pools.pool import ModelPool


@dataclass(frozen=True)
class Plan:
    """All steps in the order of the base's (or first model's) file, and what they cost.

    Attributes:
        steps: One a written tensor.
        aliases: Tied names, not written a second time: name -> the name it shares.
        models: Names in the order the method sees them.
        locality: How the engine cuts tensors.
        read_bytes: Bytes read in all passes.
        write_bytes: Bytes of the output.
        peak_bytes: Estimate of anonymous memory on top of the interpreter's.
        piece: Entries of one piece of a tensor that may be cut.
        needs: Bytes that one piece of each tensor takes at most while it is merged.
        notes: What the user should know, e.g. tensors left out.
        facts: Gives everything that decides the output; to identify models in memory it reads them.
    """

    steps: tuple[PlanStep, ...]
    aliases: Mapping[str, str]
    models: tuple[str, ...]
    locality: str
    read_bytes: int
    write_bytes: int
    peak_bytes: int
    piece: int
    needs: Mapping[str, int] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    facts: Callable[[], Mapping[str, Any]] = field(default=dict, repr=False, compare=False)

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the output."""
        text = json.dumps(self.facts(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def count(self, action: Action) -> int:
        """Number of steps with that action."""
        return sum(step.action == action for step in self.steps)

    def summary(self) -> dict[str, Any]:
        """JSON-able overview."""
        return {
            "models": list(self.models),
            "merged_tensors": self.count("merge"),
            "copied_tensors": self.count("copy") + self.count("equal"),
            "tied_tensors": len(self.aliases),
            "parameters": sum(step.info.numel for step in self.steps),
            "read_bytes": self.read_bytes,
            "write_bytes": self.write_bytes,
            "peak_bytes": self.peak_bytes,
            "locality": self.locality,
            "notes": list(self.notes),
            "key": self.key,
        }

    def __iter__(self) -> Iterator[PlanStep]:
        return iter(self.steps)


def make_plan(
    method: Method, pool: ModelPool, options: EngineOptions | None = None, *, seed: int = 0
) -> Plan:
    """Plan a fusion from headers.

    Raises:
        PlanError: if several of the following speak against it, naming all.
        MissingCapability: too few or too many models, or a base is missing or forbidden.
        ConfigError: if the method's parameters do not fit the pool.
        IncompatibleModels: naming every tensor that does not fit.
        InsufficientResources: if the memory budget cannot be honoured.
    """
    options = options or EngineOptions()
    problems = Problems(_misfits(method, pool))
    if len(pool) == 0:
        problems.raise_any()
    if not problems:
        method.check(pool.names)
    capabilities = method.capabilities
    names = pool.names if capabilities.ordered else tuple(sorted(pool.names))
    base = pool.base.checkpoint if pool.base else None
    models = {name: pool[name].checkpoint for name in names}
    aligned = None
    with problems.gathered():
        aligned = align(models, base, pool.scope, pool.heads)
    if aligned is None:
        problems.raise_any()
    assert aligned is not None
    steps = _steps(aligned, pool, options)
    if options.integers == "error" and isinstance(method, TensorMethod):
        with problems.gathered():
            check_integers(steps, models, base)
    piece = piece_size(len(models) + (base is not None))
    needs = _needs(method, steps, models, base, options, piece)
    peak = 0
    with problems.gathered():
        if not isinstance(method, ModelMethod):
            peak = _peak(method, steps, needs, options, piece)
        elif not problems:
            # What a method holds of a pool that is not as it declares is undefined.
            peak = _held(method, pool, options)
    problems.raise_any()
    read = models if base is None else {**models, "_base_": base}
    return Plan(
        steps=steps,
        aliases=aligned.aliases,
        models=names,
        locality=capabilities.locality,
        read_bytes=_read_bytes(method, steps, models, base),
        write_bytes=sum(step.info.nbytes for step in steps),
        peak_bytes=peak,
        piece=piece,
        needs=needs,
        notes=(
            *aligned.notes,
            *(pool.alignment.notes if pool.alignment else ()),
            *_too_large(peak, options),
            *_device(method, options),
        ),
        facts=lambda: _facts(method, steps, read, options, seed),
    )


def _misfits(method: Method, pool: ModelPool) -> Iterator[MissingCapability]:
    """What of the number of models and the base is not as the method declares, with the remedy."""
    name, capabilities, count = method.record.full_name, method.capabilities, len(pool)
    if capabilities.base == "required" and pool.base is None:
        yield MissingCapability(
            f"{name} needs a base model, and this model pool has none",
            config="modelpool",
            why="it works on task vectors, which are differences from the base",
            fix="add `modelpool.base`, or use a method without one; `fb list methods` says what each needs",
        )
    if capabilities.base == "forbidden" and pool.base is not None:
        yield MissingCapability(
            f"{name} takes no base model", config="modelpool.base", fix="remove `modelpool.base`"
        )
    if count < capabilities.min_models:
        yield MissingCapability(
            f"{name} needs at least {_models(capabilities.min_models)}, and this pool has {count}",
            config="modelpool.models",
            why=f"the pool names {', '.join(pool.names) or 'none'}; the base does not count",
            fix="add models to `modelpool.models`",
        )
    if capabilities.max_models is not None and count > capabilities.max_models:
        yield MissingCapability(
            f"{name} takes at most {_models(capabilities.max_models)}, and this pool has {count}",
            config="modelpool.models",
            why=f"the pool names {', '.join(pool.names)}",
            fix="remove models from `modelpool.models`",
        )
    if pool.alignment and capabilities.output != "weights":
        yield MissingCapability(
            f"{name} keeps its members as they are, so their vocabularies cannot be aligned",
            config="modelpool.tokenizer",
            fix="remove it, or choose a method that gives weights",
        )


def _steps(aligned: Alignment, pool: ModelPool, options: EngineOptions) -> tuple[PlanStep, ...]:
    pattern = layer_pattern(pool.layer_names)
    layers = count_layers((name for name, *_ in aligned.steps), pattern)
    return tuple(
        PlanStep(
            name,
            action,
            TensorInfo(info.shape, _output_dtype(action, info.dtype, options)),
            source,
            layer_of(name, pattern),
            layers.get(name),
        )
        for name, action, info, source in aligned.steps
    )


def _read_bytes(
    method: Method, steps: tuple[PlanStep, ...], models: Mapping[str, Checkpoint], base: Checkpoint | None
) -> int:
    """Bytes read in all passes."""
    width = len(models) + (base is not None and method.capabilities.base == "required")
    merged = sum(
        step.info.numel * _widest(step.name, models, base).itemsize
        for step in steps
        if step.action == "merge"
    )
    copied = sum(step.info.nbytes for step in steps if step.action != "merge")
    return merged * width * (1 + method.capabilities.surveys) + copied


def _output_dtype(action: str, dtype: torch.dtype, options: EngineOptions) -> torch.dtype:
    return options.dtype if options.dtype is not None and dtype.is_floating_point else dtype


def _widest(name: str, models: Mapping[str, Checkpoint], base: Checkpoint | None) -> torch.dtype:
    checkpoints = [*models.values(), *([base] if base else [])]
    return max((c.info(name).dtype for c in checkpoints if name in c), key=lambda dtype: dtype.itemsize)


def _needs(
    method: Method,
    steps: tuple[PlanStep, ...],
    models: Mapping[str, Checkpoint],
    base: Checkpoint | None,
    options: EngineOptions,
    piece: int,
) -> dict[str, int]:
    """Bytes that one piece of each tensor takes at most while it is merged."""
    each, besides = method.capabilities.scratch
    needs = {}
    for name, action, info in ((step.name, step.action, step.info) for step in steps):
        itemsize = accumulation_dtype(_widest(name, models, base), options.accumulate).itemsize
        copies, locality = 2.0, "element"
        if action == "merge":
            copies, locality = each * len(models) + besides, method.capabilities.locality
            if isinstance(method, TensorMethod):
                copies = method.scratch(name, info.shape, len(models))
        needs[name] = math.ceil(piece_numel(info, locality, piece) * itemsize * copies)
    return needs


def _peak(
    method: Method, steps: tuple[PlanStep, ...], needs: Mapping[str, int], options: EngineOptions, piece: int
) -> int:
    """Bytes of the largest pieces that are in flight together."""
    widest = max(steps, key=lambda step: needs[step.name], default=None)
    budget = options.memory_budget
    if widest is None:
        return 0
    if budget is not None and (largest := needs[widest.name]) > budget:
        raise InsufficientResources(
            f"the memory budget of {budget / 1e6:,.0f} MB is too small",
            config="engine.memory_budget, by default three quarters of the free memory",
            tensor=f"{widest.name} {widest.info}",
            why=f"{method.record.full_name} takes up to {largest / 1e6:,.0f} MB to merge it",
            fix=f"set engine.memory_budget to {-(-largest // 10**6)}MB or more, or fuse element by element",
        )
    locality = method.capabilities.locality
    flights = (
        needs[step.name]
        for step in steps
        for _ in range(min(options.threads, pieces(step.info, locality, piece)))
    )
    total = sum(heapq.nlargest(options.threads, flights))
    return total if budget is None else min(total, budget)


def _held(method: ModelMethod, pool: ModelPool, options: EngineOptions) -> int:
    """Bytes that a method which holds whole models takes."""
    held, budget = method.memory(pool), options.memory_budget
    if budget is not None and held > budget and not options.budget_is_guess:
        raise InsufficientResources(
            f"the memory budget of {budget / 1e6:,.0f} MB is too small",
            config="engine.memory_budget",
            why=f"{method.record.full_name} holds about {held / 1e6:,.0f} MB of models",
            fix=f"set engine.memory_budget to {-(-held // 10**6)}MB or more, or choose a method that streams",
        )
    return held


def _too_large(peak: int, options: EngineOptions) -> tuple[str, ...]:
    budget = options.memory_budget
    if budget is None or peak <= budget:
        return ()
    return (f"it takes about {peak / 1e6:,.0f} MB, more than the memory budget of {budget / 1e6:,.0f} MB",)


def _models(count: int) -> str:
    return "one model" if count == 1 else f"{count} models"


def _device(method: Method, options: EngineOptions) -> Iterator[str]:
    if options.device.type != "cpu":
        where = device_for(method, options)
        why = "" if where == options.device else f": the method does not compute on {options.device}"
        yield f"computed on {where}{why}"


def _facts(
    method: Method,
    steps: tuple[PlanStep, ...],
    inputs: Mapping[str, Checkpoint],
    options: EngineOptions,
    seed: int,
) -> dict[str, Any]:
    device = device_for(method, options)
    return {
        **({} if device.type == "cpu" else {"device": torch.cuda.get_device_name(device)}),
        "core": __version__,
        "method": method.record.full_name,
        "parameters": method.model_dump(mode="json"),
        "steps": [
            [s.name, s.action, list(s.info.shape), dtype_name(s.info.dtype), s.source, s.layer] for s in steps
        ],
        "inputs": {name: checkpoint.identity() for name, checkpoint in inputs.items()},
        "accumulate": dtype_name(options.accumulate),
        "integers": options.integers,
        "seed": seed,
    }
