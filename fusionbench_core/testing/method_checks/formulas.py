"""Weights of models, and the author's own reference formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_checks.laws import compare, fused, on_grid
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.tolerance import bound, deviation

if TYPE_CHECKING:
    from torch import Tensor

    from fusionbench_core.testing.zoo import Case


@check("FM-219", required=False, level="full")
def weights_of_models(subject: MethodSubject) -> None:
    """Equal weights change nothing, weights that are normalised have no scale, weight 0 leaves a model out.

    What everyone expects of a parameter called `weights`.

    Fix: normalise by the sum of the weights, and leave models of weight 0 out of every count.
    """
    case = subject.case("mlp")
    count = len(case.models)
    if not _takes_weights(subject, case):
        raise Inapplicable("it has no parameter `weights` that takes one number a model")
    if subject.record.capabilities.trains:
        raise Inapplicable("it learns how much each model counts")
    _equal_weights(subject, case)
    if any(subject.cls.model_fields[name].default is True for name in _normalising(subject)):
        rising = [float(index + 1) for index in range(count)]
        wanted = fused(subject, case, parameters={"weights": rising})
        found = fused(subject, case, parameters={"weights": [2 * each for each in rising]})
        compare(subject, case, found, wanted, "normalised weights times 2 give another result")
    if count > subject.record.capabilities.min_models:
        fewer = dict(list(case.models.items())[:-1])
        rising = [float(index + 1) for index in range(count - 1)]
        without = type(case)(case.name, case.base, fewer, case.tasks)
        wanted = fused(subject, without, parameters={"weights": rising})
        found = fused(subject, case, parameters={"weights": [*rising, 0.0]})
        compare(subject, case, found, wanted, "a model of weight 0 still counts")


@check("FM-221")
def reference_formula(subject: MethodSubject) -> None:
    """Merging agrees with the author's plain formula in float64.

    Fast code is in-place, fused and chunked; the formula of the paper is one line. Both must say the same,
    the factor 1/p included.

    Fix: find the step in which `merge` and `reference` differ; both get the same group and the same survey.
    """
    from fusionbench_core.methods import TensorMethod

    if not issubclass(subject.cls, TensorMethod):
        raise Inapplicable("only tensor methods have a reference formula")
    if subject.cls.reference is TensorMethod.reference:
        raise Inapplicable("its author gives no reference formula: `reference(group)`")
    faults: list[Violation] = []

    def merge(method: Any, group: Any) -> Tensor:
        # First: merging may overwrite the group.
        wanted = subject.cls.reference(method, _wide(group))
        inputs = [tensor.clone() for tensor in (*group.models, *([group.base] if group.has_base else []))]
        merged = subject.cls.merge(method, group)
        allowed, off = bound(merged.dtype, inputs), deviation(merged, wanted.reshape(merged.shape))
        if off > allowed:
            what = f"merging {group.name} differs from the author's formula"
            faults.append(Violation(what, measured=f"{off:.3g}", bound=f"{allowed:.3g}"))
        return merged

    for name in ("mlp", "tied_lm"):
        # Differences are exact, so that no entry falls on another side of a threshold in fp64.
        subject.overriding(merge=merge).fuse(on_grid(subject.case(name)))
    if faults:
        raise faults[0]


def _equal_weights(subject: MethodSubject, case: Case) -> None:
    """Compare weights 1, or weights that add up to 1, with no weights at all.

    Raises:
        Violation: if neither gives the same.
    """
    plain, count, fault = fused(subject, case), len(case.models), None
    for weight in (1.0, 1 / count):
        try:
            found = fused(subject, case, parameters={"weights": [weight] * count})
            return compare(subject, case, found, plain, "equal weights give another result than none")
        except Violation as violation:
            fault = violation
    assert fault is not None
    raise fault


def _takes_weights(subject: MethodSubject, case: Case) -> bool:
    from pydantic import ValidationError

    if "weights" not in subject.cls.model_fields:
        return False
    try:
        subject.method(tuple(case.models), weights=[1.0] * len(case.models))
    except ValidationError:
        return False
    return True


def _normalising(subject: MethodSubject) -> list[str]:
    return [name for name in ("normalize", "normalise") if name in subject.cls.model_fields]


def _wide(group: Any) -> Any:
    """The same group in fp64."""
    from fusionbench_core.methods import TensorGroup

    return TensorGroup(
        name=group.name,
        shape=group.shape,
        start=group.start,
        names=group.names,
        models=[tensor.double() for tensor in group.models],
        base=group.base.double() if group.has_base else None,
        seed=group._seed,
        survey=group.survey,
        statistics=group.statistics,
        layer=group.layer,
        layers=group.layers,
    )
