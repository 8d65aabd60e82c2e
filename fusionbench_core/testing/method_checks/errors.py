"""What a stranger sees when something does not fit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.errors import FusionError
from fusionbench_core.methods import TensorMethod
from fusionbench_core.pools import ModelPool
from fusionbench_core.registry import default_registry
from fusionbench_core.statistics.collect import collect_statistics
from fusionbench_core.tasks import Task
from fusionbench_core.tasks.adaptation import AdaptationTask
from fusionbench_core.testing import zoo
from fusionbench_core.testing.artefacts import write_artefact
from fusionbench_core.testing.check import Inapplicable, Violation, check, unexpected
from fusionbench_core.testing.method_checks.misfits import (
    PoorTask,
    Stopping,
    StoppingTask,
    fuse_case,
    more_words,
    odd_one,
    pair,
    poison,
    pool_of,
    renamed,
    task_head,
    with_changes,
)
from fusionbench_core.testing.method_checks.parameters import variants
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.tolerance import assert_close
from fusionbench_core.testing.zoo import NAMES, WIDTH, Case, state_of

_HEADS = ("classifier.*",)


@check("FM-501")
def other_names(subject: MethodSubject) -> None:
    """Missing and extra tensors are named; task heads that only some models have do no harm.

    Without the names, a user is left with two files of a thousand tensors each.

    Fix: leave the comparison to the engine, and read tensors only where `pool.merges(name)` holds.
    """
    case, last = pair(subject)

    def without(module: nn.Module) -> None:
        module.get_submodule("norm").register_parameter("bias", None)

    def beside(module: nn.Module) -> None:
        module.register_parameter("adapter", nn.Parameter(torch.zeros(WIDTH)))

    for change, tensor in ((without, "norm.bias"), (beside, "adapter")):
        odd = with_changes(case, {last: change})
        _refused(lambda odd=odd: fuse_case(subject, odd), f"a model where {tensor} is odd", last, tensor)
    headed = with_changes(case, {name: task_head(2) for name in case.models})
    _works(lambda: fuse_case(subject, headed, heads=_HEADS), "models with a task head, the base without")


@check("FM-502")
def other_shapes(subject: MethodSubject) -> None:
    """Shapes that differ are named, vocabularies are called by their name; task heads may differ.

    Fine-tuned models often have heads and vocabularies of their own: the two most common mismatches.

    Fix: leave the comparison to the engine, and read tensors only where `pool.merges(name)` holds.
    """
    case, last = pair(subject)

    def wider(module: nn.Module) -> None:
        module.register_parameter("adapter", nn.Parameter(torch.zeros(WIDTH + 1)))

    def narrow(module: nn.Module) -> None:
        module.register_parameter("adapter", nn.Parameter(torch.zeros(WIDTH)))

    changes: dict[str | None, Callable[[nn.Module], None]] = dict.fromkeys((None, *case.models), narrow)
    odd = with_changes(case, {**changes, last: wider})
    _refused(lambda: fuse_case(subject, odd), "a model with a tensor of another shape", last, "adapter")
    language, _ = pair(subject, "plain_lm")
    grown = with_changes(language, {last: more_words})
    _refused(
        lambda: fuse_case(subject, grown), "a model of another vocabulary", last, "embed.weight", "vocabular"
    )
    headed = with_changes(case, {name: task_head(size) for size, name in enumerate((None, *case.models), 2)})
    _works(lambda: fuse_case(subject, headed, heads=_HEADS), "models with task heads of different sizes")


@check("FM-503")
def mixed_dtypes(subject: MethodSubject) -> None:
    """Models of different precision fuse as if all had the highest.

    A bfloat16 checkpoint among float32 ones is common, and mixing them fails deep inside torch.

    Fix: convert what you read to one dtype, at least float32, before you compute.
    """
    case = subject.case("mlp").floats_changed(lambda model, name, tensor: tensor.bfloat16().float())
    first = next(iter(case.models))
    mixed = with_changes(case, {first: lambda module: module.to(torch.bfloat16)})
    found = _works(lambda: fuse_case(subject, mixed), f"{first} in bfloat16 and the others in float32")
    if subject.gives_weights and not subject.capabilities.trains and len(case.models) > 1:
        models, base = case.states()
        # What is stored in bfloat16 may be computed with in bfloat16; the values are the same.
        coarse = 4 * torch.finfo(torch.bfloat16).eps / torch.finfo(torch.float32).eps
        assert_close(
            found,
            fuse_case(subject, case),
            [base, *models.values()],
            "the same values, some of them stored in bfloat16, give another result",
            k=coarse,
        )
    elif not subject.gives_weights:
        _works(lambda: subject.outputs(found, mixed), "running what it made of models of two dtypes")


@check("FM-504")
def non_finite_inputs(subject: MethodSubject) -> None:
    """NaN and Inf in an input are refused, naming model and tensor.

    One broken download otherwise becomes a broken model, found out after its evaluation.

    Fix: read tensors through `job.pool.checkpoint(name)` or `job.pool.module(name)`, which check them.
    """
    case, last = subject.case("mlp"), odd_one(subject)
    broken: list[str | None] = [last]
    if subject.record.capabilities.base == "required":
        broken.append(None)
    for model in broken:
        for value in (float("nan"), float("inf")):
            poisoned = case.floats_changed(poison(model, "layers.0.weight", value))
            _refused(
                lambda poisoned=poisoned: fuse_case(subject, poisoned),
                f"{value} in {model or 'the base'}",
                model or "base",
                "layers.0.weight",
            )


@check("FM-505")
def base_as_declared(subject: MethodSubject) -> None:
    """A base is needed, taken or refused as declared.

    The plan tells a user before anything is read; a wrong declaration tells after an hour, or never.

    Fix: declare `base="required"` if `group.base`, `group.deltas` or `pool.checkpoint()` is used.
    """
    case, declared, name = subject.case("mlp"), subject.record.capabilities.base, subject.record.name
    if declared == "required":
        _refused(lambda: fuse_case(subject, case, base=None), "a pool without a base", name, "base")
    if declared == "forbidden":
        _refused(lambda: fuse_case(subject, case, base=case.base), "a pool with a base", name, "base")
    if declared == "optional":
        _works(
            lambda: fuse_case(subject, case, base=None), 'no base, although it declares base="optional"', True
        )


@check("FM-506")
def number_of_models(subject: MethodSubject) -> None:
    """It takes as many models as declared, and says how many when there are more or fewer.

    A method that silently takes the first two of five models gives a result that means nothing.

    Fix: declare `min_models` and `max_models`.
    """
    declared, name = subject.record.capabilities, subject.record.name
    low, high = max(declared.min_models, 1), min(declared.max_models or len(NAMES), len(NAMES))
    for count in {low, high} if low <= high else ():
        case = subject.case("mlp", count=count)
        _works(lambda case=case: fuse_case(subject, case), f"{count} models, which it declares to take", True)
    wrong = [count for count in (low - 1, high + 1) if 1 <= count <= len(NAMES)]
    for count in wrong:
        case = zoo.case("mlp", count=count)
        _refused(lambda case=case: fuse_case(subject, case), f"{count} models", name, str(count))
    _refused(lambda: fuse_case(subject, zoo.case("mlp", count=0)), "no models at all", "models")


@check("FM-507")
def tasks_as_needed(subject: MethodSubject) -> None:
    """Tasks that are missing, or lack what it needs, are reported before anything is computed.

    Adapting to data needs data: the most common mistake is a task pool that does not fit the models.

    Fix: declare in `tasks` all that is asked of tasks, and raise MissingCapability naming the models whose
    task is missing.
    """
    declared, name = subject.record.capabilities, subject.record.name
    if not (declared.tasks or declared.statistics):
        raise Inapplicable("it needs no tasks")
    case = subject.case("mlp")
    _refused(lambda: fuse_case(subject, case, tasks=None), "no task pool", name, "task")
    poor = {each: PoorTask(name=each) for each in case.tasks}
    _refused(lambda: fuse_case(subject, case, tasks=poor), "tasks that give no batches", name, "batches")
    *others, last = case.models
    if others:
        some = {each: case.tasks[each] for each in others}
        _refused(lambda: fuse_case(subject, case, tasks=some), f"no task for {last}", last, may_pass=True)


@check("FM-508")
def statistics_of_these_models(subject: MethodSubject) -> None:
    """Statistics that a model lacks are missed aloud or done without; none are used for other weights.

    A statistic has nothing for some tensors; and one of other weights makes a plausible wrong model.

    Fix: expect None among `group.statistics[name]`, and keep no statistics between runs.
    """
    declared = subject.record.capabilities
    if not declared.statistics:
        raise Inapplicable("it reads no statistics")
    case = subject.case("mlp")
    _refused(lambda: _merge_without(subject, case), "no statistic of one model", may_pass=True)
    if declared.random:
        return
    fuse_case(subject, case)
    other = subject.case("mlp", seed=1)
    models, base = other.states()
    assert_close(
        fuse_case(subject, other),
        fuse_case(subject, renamed(subject, other)),
        [base, *models.values()],
        "models called as others before them were merged with the others' statistics",
    )


@check("FM-509", requires=("FM-102",))
def no_bare_errors(subject: MethodSubject) -> None:
    """No AssertionError, KeyError, IndexError or RuntimeError: what fails says what to do.

    A traceback from inside a method tells its author something, and its user nothing.

    Fix: raise FusionError subclasses with `fix`; check parameters against the models' names in `check`.
    """
    for parameters, method in variants(subject):
        for count in range(1, len(NAMES) + 1):
            reproduce = f"{subject.cls.__name__}(**{parameters!r}).check({NAMES[:count]})"
            try:
                method.check(NAMES[:count])
            except FusionError:
                continue
            except Exception as error:
                raise Violation(
                    f"its check of the models' names raises {unexpected(error)}",
                    bound="ConfigError",
                    reproduce=reproduce,
                ) from error
    case = subject.case("mlp")
    nothing = {"include": ["no such tensor"]}
    _refused(lambda: fuse_case(subject, case, scope=nothing), "a scope without any tensor", may_pass=True)
    vector = {"include": ["norm.bias"]}
    _refused(lambda: fuse_case(subject, case, scope=vector), "a scope of one small tensor", may_pass=True)


@check("FM-510")
def interrupts_pass(subject: MethodSubject) -> None:
    """An interrupt stops it, and leaves no output that looks finished.

    Who presses Ctrl-C wants the program to stop, not to go on with one model less.

    Fix: catch `Exception` at most, better the one error that is expected; never `except:` or `BaseException`.
    """
    case, last = subject.case("mlp"), odd_one(subject)
    pool = pool_of(subject, case)
    stopping = pool[last].checkpoint = Stopping(state_of(case.models[last]))
    _interrupted(subject, pool, case.tasks, lambda: stopping.reached)
    if subject.record.capabilities.tasks:
        tasks = {name: StoppingTask(name=name) for name in case.tasks}
        _interrupted(subject, pool_of(subject, case), tasks, lambda: True)


def _interrupted(
    subject: MethodSubject, pool: ModelPool, tasks: Mapping[str, Task], reached: Callable[[], bool]
) -> None:
    with tempfile.TemporaryDirectory(prefix="fb-check-") as scratch:
        directory = Path(scratch) / "model"
        try:
            write_artefact(subject, pool, tasks, directory)
        except KeyboardInterrupt:
            if directory.exists():
                raise Violation("an interrupted run leaves an output that looks finished") from None
            return
        except Exception as error:
            if reached():
                raise Violation(f"an interrupt becomes another error: {unexpected(error)}") from error
            raise
        if reached():
            raise Violation("an interrupt is swallowed: it goes on and gives a result")


def _merge_without(subject: MethodSubject, case: Case) -> None:
    """Merge with the statistics of all models but the last."""
    pool = pool_of(subject, case)
    method = subject.method(pool.names)
    assert isinstance(method, TensorMethod)
    names = pool.names if method.capabilities.ordered else tuple(sorted(pool.names))
    tasks = {name: AdaptationTask(task) for name, task in case.tasks.items()}
    found = collect_statistics(method, pool, tasks, default_registry(), names=names)
    merge_in_memory(method, pool, statistics={name: [*each[:-1], {}] for name, each in found.items()})


def _works(work: Callable[[], Any], situation: str, declared: bool = False) -> Any:
    try:
        return work()
    except Inapplicable:
        raise
    except Exception as error:
        raise Violation(
            f"it fails with {situation}: {unexpected(error)}", false_declaration=declared
        ) from error


def _refused(work: Callable[[], Any], situation: str, *names: str, may_pass: bool = False) -> None:
    """The work must raise a FusionError with a remedy that names all of `names`, or may pass."""
    try:
        work()
    except FusionError as error:
        bare = error.__cause__
        if bare is not None and not isinstance(bare, FusionError) and isinstance(bare, Exception):
            raise Violation(
                f"{situation}: a {type(bare).__name__} escapes from it: {bare}",
                bound="a FusionError with what to do",
            ) from error
        lost = [name for name in names if name not in str(error)]
        if lost:
            raise Violation(
                f"{situation}: the error does not name {', '.join(lost)}", measured=str(error)
            ) from error
        if not error.fix:
            raise Violation(f"{situation}: the error does not say what to do", measured=str(error)) from error
    except Inapplicable:
        raise
    except Exception as error:
        raise Violation(
            f"{situation}: a bare {unexpected(error)}", bound="a FusionError with what to do"
        ) from error
    else:
        if not may_pass:
            raise Violation(f"{situation}: it passes silently", bound="a FusionError with what to do")
