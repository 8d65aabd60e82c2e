"""Algebraic laws: each must hold where it is declared, and is suggested where it holds and is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fusionbench_core.errors import FusionError, MissingCapability
from fusionbench_core.records import Law
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.tolerance import State, assert_close

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fusionbench_core.testing.zoo import Case

_GRID = 2**-12
"""Small multiples of it are moved and subtracted without rounding, so that no entry changes rank or sign."""


@check("FM-213")
def identical_inputs(subject: MethodSubject) -> str | None:
    """Copies of one model give that model, where the law IDENTICAL is declared.

    Frozen layers and untouched embeddings are copies: a method that changes them breaks models quietly.

    Fix: look at how weights add up (to 1), or take IDENTICAL out of the declared laws.
    """

    def probe(dtype: torch.dtype) -> None:
        case = subject.case("mlp", dtype=dtype)
        first = next(iter(case.models.values()))
        copies = _with_models(case, dict.fromkeys(case.models, first))
        found = fused(subject, copies)
        what = "copies of one model, which is not the base, do not give that model"
        compare(subject, copies, found, first, what)

    return _law(subject, Law.IDENTICAL, probe)


@check("FM-214")
def any_order(subject: MethodSubject) -> str | None:
    """The order of the models does not matter, where the law PERMUTATION is declared.

    The order in a config is an accident, unless the method says otherwise.

    Fix: sum over the models; break ties by value, not by place. Or declare `ordered=True`, and take
    PERMUTATION out of the declared laws.
    """
    if subject.capabilities.ordered and Law.PERMUTATION not in subject.capabilities.laws:
        raise Inapplicable("it declares that the order of the models is meaningful")

    def probe(dtype: torch.dtype) -> None:
        case = subject.case("mlp", dtype=dtype)
        wanted = as_it_is(subject, case, dtype)
        for other in _reordered(subject, case):
            compare(subject, case, fused(subject, other), wanted, "another order gives another result")

    return _law(subject, Law.PERMUTATION, probe)


@check("FM-215")
def one_model(subject: MethodSubject) -> str | None:
    """One model can be fused, and gives itself where the law SINGLE is declared; or it is too few.

    Sweeps and ablations begin with one model, and a variance over one model is 0 / 0.

    Fix: think of n - 1 = 0, or declare `min_models=2`; take SINGLE out of the declared laws if it fails.
    """
    least = subject.record.capabilities.min_models
    if least > 1:
        return _too_few(subject, least)

    def probe(dtype: torch.dtype) -> None:
        case = subject.case("mlp", count=1, dtype=dtype)
        (only,) = case.models.values()
        compare(subject, case, fused(subject, case), only, "one model alone does not give itself")

    if Law.SINGLE not in subject.capabilities.laws:
        fused(subject, subject.case("mlp", count=1))
    return _law(subject, Law.SINGLE, probe)


@check("FM-216")
def base_is_fixed(subject: MethodSubject) -> str | None:
    """Models equal to the base give the base, where the law BASE_FIXED_POINT is declared.

    What fine-tuning left alone, fusing must leave alone.

    Fix: let all-zero task vectors add up to zero, without dividing by their norm; or take BASE_FIXED_POINT
    out of the declared laws.
    """

    def probe(dtype: torch.dtype) -> None:
        case = subject.case("mlp", dtype=dtype)
        copies = _with_models(case, dict.fromkeys(case.models, case.base))
        what = "models that equal the base do not give the base"
        compare(subject, copies, fused(subject, copies), case.base, what)

    return _law(subject, Law.BASE_FIXED_POINT, probe)


@check("FM-217", required=False, level="full")
def translation(subject: MethodSubject) -> str | None:
    """Adding a constant to all models and the base adds it to the result, where TRANSLATION is declared.

    Methods on task vectors see differences only; whoever looks at the weights themselves must not say so.

    Fix: work on `group.deltas`, let weights add up to 1, or take TRANSLATION out of the declared laws.
    """
    subject.needs_weights()

    def probe(dtype: torch.dtype) -> None:
        case = on_grid(subject.case("mlp", dtype=dtype))
        moved = case.floats_changed(lambda model, key, tensor: tensor + 0.5)
        wanted = {name: tensor.double() + 0.5 for name, tensor in subject.fuse(case).items()}
        compare(subject, moved, subject.fuse(moved), wanted, "a constant added to all models is not added")

    return _law(subject, Law.TRANSLATION, probe, dtypes=("float32", "float64"))


@check("FM-218", required=False, level="full")
def scale(subject: MethodSubject) -> str | None:
    """Scaling all models and the base scales the result, where the law SCALE is declared.

    An absolute threshold or an epsilon that is no fraction of the values breaks it.

    Fix: make thresholds relative, or take SCALE out of the declared laws.
    """
    subject.needs_weights()

    def probe(dtype: torch.dtype) -> None:
        case = subject.case("mlp", dtype=dtype)
        plain = as_it_is(subject, case, dtype)
        # Powers of two: scaling itself does not round.
        for factor in (4, 2**-10):
            scaled = case.floats_changed(lambda model, key, tensor, factor=factor: tensor * factor)
            wanted = {name: tensor.double() * factor for name, tensor in plain.items()}
            what = f"models times {factor} do not give the result times {factor}"
            compare(subject, scaled, subject.fuse(scaled), wanted, what)

    return _law(subject, Law.SCALE, probe)


@check("FM-220", required=False, level="full", requires=("FM-217",))
def deltas_or_weights(subject: MethodSubject) -> None:
    """Task vectors fused, plus the base, are the fused weights, where TRANSLATION is declared.

    Task vectors are stored and fused by themselves, as differences or as adapters.

    Fix: work on `group.deltas` only, or take TRANSLATION out of the declared laws.
    """
    subject.needs_weights()
    if Law.TRANSLATION not in subject.capabilities.laws:
        raise Inapplicable("the law TRANSLATION is not declared")
    case = on_grid(subject.case("mlp"))
    start = case.base.state_dict()
    deltas = case.floats_changed(lambda model, key, tensor: tensor - start[key])
    wanted = {name: tensor.double() + start[name] for name, tensor in subject.fuse(deltas).items()}
    compare(subject, case, subject.fuse(case), wanted, "task vectors fuse to something else than weights")


def on_grid(case: Case) -> Case:
    """The case with coarser values, so that moving and subtracting them is exact."""

    def rounded(model: str | None, key: str, tensor: Tensor) -> Tensor:
        return (tensor / _GRID).round() * _GRID

    return case.floats_changed(rounded)


def fused(subject: MethodSubject, case: Case, **options: Any) -> Any:
    """What laws speak of: the fused weights, or the module where the method gives one."""
    if subject.gives_weights:
        return subject.fuse(case, **options)
    return subject.raw(case.models, case.base, tasks=case.tasks, **options)


def as_it_is(subject: MethodSubject, case: Case, dtype: torch.dtype) -> Any:
    """What :func:`fused` gives for the plainest case of this dtype; weights are fused once for all checks."""
    if subject.gives_weights:
        return subject.fused(dtype=str(dtype).removeprefix("torch."))
    return fused(subject, case)


def compare(subject: MethodSubject, case: Case, found: Any, wanted: Any, what: str) -> None:
    """Compare weights with weights, or what modules give for the case's data.

    Args:
        case: Says which inputs went in, for the bound.
        found: What :func:`fused` gave.
        wanted: A module, a state dict, or what :func:`fused` gave.
        what: What is wrong where they differ.

    Raises:
        Violation: naming the tensor, or the task, that is furthest out.
    """
    modules: Iterable[Any] = (case.base, *case.models.values())
    states = [_seen(subject, case, each) for each in (found, wanted, *modules)]
    dtype = next(case.base.parameters()).dtype
    # A forward pass rounds in every layer.
    k = 4.0 if subject.gives_weights else 32.0
    assert_close(states[0], states[1], states[2:], f"{what} ({str(dtype).removeprefix('torch.')})", k=k)


def _seen(subject: MethodSubject, case: Case, thing: Any) -> State:
    if subject.gives_weights:
        return thing if isinstance(thing, dict) else thing.state_dict()
    dtype = next(case.base.parameters()).dtype
    return {name: logits.to(dtype) for name, logits in subject.outputs(thing, case).items()}


def _law(
    subject: MethodSubject,
    law: Law,
    probe: Callable[[torch.dtype], None],
    dtypes: tuple[str, ...] = ("float32", "bfloat16"),
) -> str | None:
    """Probe a law in several dtypes."""
    import torch

    declared = law in subject.capabilities.laws
    if not declared and subject.capabilities.trains:
        raise Inapplicable(f"the law {law.name} is not declared; probing it would mean to train again")
    try:
        for dtype in dtypes:
            probe(getattr(torch, dtype))
    except (Violation, FusionError) as fault:
        if not declared:
            raise Inapplicable(f"the law {law.name} is not declared, and does not hold") from None
        if isinstance(fault, Violation):
            fault.false_declaration = True
            raise
        what = f"the law {law.name} is declared, and probing it fails: {fault}"
        raise Violation(what, false_declaration=True) from fault
    return None if declared else f"the law {law.name} holds on all probes: you may declare it"


def _with_models(case: Case, models: dict[str, Any]) -> Case:
    return type(case)(case.name, case.base, models, case.tasks)


def _reordered(subject: MethodSubject, case: Case) -> Iterable[Case]:
    """The same models in another order, and with one another's names where names decide nothing."""
    names, models, tasks = list(case.models), list(case.models.values()), list(case.tasks.values())
    yield _with_models(case, dict(list(case.models.items())[::-1]))
    parameters = json.dumps(subject.example(names), default=str)
    listed = subject.example(names) != subject.example(names[::-1])
    named = subject.capabilities.random or subject.capabilities.output == "conditioned"
    if not (listed or named or any(name in parameters for name in names)):
        swapped = dict(zip(names, reversed(tasks)))
        yield type(case)(case.name, case.base, dict(zip(names, reversed(models))), swapped)


def _too_few(subject: MethodSubject, least: int) -> None:
    if Law.SINGLE in subject.capabilities.laws:
        raise Violation(
            f"the law SINGLE is declared, and so is that it takes {least} models at least",
            false_declaration=True,
        )
    case = subject.case("mlp")
    first, *_ = case.models
    try:
        fused(subject, _with_models(case, {first: case.models[first]}))
    except MissingCapability:
        return
    raise Violation(f"it declares min_models={least}, and fuses one model without a word")
