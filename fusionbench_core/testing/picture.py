"""Everything about a result that two runs can be compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fusionbench_core.testing.check import Violation
from fusionbench_core.testing.sandbox import fixed_global_seed, own_cache
from fusionbench_core.testing.tolerance import assert_close, same_bits

if TYPE_CHECKING:
    from fusionbench_core.testing.method_subject import MethodSubject
    from fusionbench_core.testing.zoo import Case

Picture = Mapping[str, Tensor]
"""Name of a tensor, or `outputs on TASK`, -> values."""

OUTPUTS = "outputs on "
"""What the names of outputs begin with."""

TRAINED = 1000.0
"""Training carries rounding on: a thousand roundings are allowed to a method that learns."""


def picture(subject: MethodSubject, case: Case, **options: Any) -> Picture:
    """Fuse a case; its tensors, and the outputs of a new architecture. Options as of `subject.run`."""
    if subject.streams:
        return subject.fuse(case, **options)
    return picture_of(subject, subject.raw(case.models, case.base, tasks=case.tasks, **options), case)


def picture_of(subject: MethodSubject, fused: Any, case: Case) -> Picture:
    """The picture of a state dict or a module that a method made of a case."""
    if isinstance(fused, Mapping):
        return fused
    state = fused.state_dict()
    if subject.gives_weights:
        return dict(state)
    outputs = subject.outputs(fused, case)
    return {**state, **{f"{OUTPUTS}{task}": logits for task, logits in outputs.items()}}


def isolated(subject: MethodSubject, case: Case, **options: Any) -> Picture:
    """A picture made where only the method itself can make a difference: one thread, seed, empty cache."""
    with fixed_global_seed(), own_cache():
        return picture(subject, case, engine={"threads": 1}, **options)


def behaviour(subject: MethodSubject, found: Picture) -> Picture:
    """The part of a picture that users see: weights, or what a new architecture computes."""
    return found if subject.gives_weights else {k: v for k, v in found.items() if k.startswith(OUTPUTS)}


def assert_same(found: Picture, wanted: Picture, what: str) -> None:
    """Compare bit by bit.

    Raises:
        Violation: naming the first tensor that differs.
    """
    name = same_bits(found, wanted)
    if name is not None:
        raise Violation(f"{what}: {name} differs")


def assert_alike(
    subject: MethodSubject, found: Picture, wanted: Picture, case: Case, what: str, *, k: float = 4.0
) -> None:
    """Compare up to the rounding that another order of sums makes; `k` as of `tolerance.bound`.

    Raises:
        Violation: naming the tensor that is furthest out.
    """
    models, base = case.states()
    k = TRAINED if subject.capabilities.trains else k
    assert_close(found, wanted, [base, wanted, *models.values()], what, k=k)
