"""Buffers: integers, booleans, and what batch normalisation counts and remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fusionbench_core.errors import FusionError
from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.method_subject import MethodSubject

if TYPE_CHECKING:
    from torch import Tensor

    from fusionbench_core.testing.zoo import Case

_OFFSETS = (1000, 0, 7, 50, 210, 330)
"""Of the base and of up to five models: no mean or sum of some of them is one of them."""


@check("FM-208", requires=("FM-201", "FM-202"))
def integers_untouched(subject: MethodSubject) -> None:
    """Integer and boolean tensors are not merged.

    The mean of position ids, masks or counters means nothing, and a floating dtype changes even equal ones.

    Fix: leave tensors that are not floating out, or take them from the base. Where they differ between the
    models, take one model's or the largest, or raise `IncompatibleModels` with the name of the tensor.
    """
    subject.needs_weights()
    case = subject.case("plain_lm").changed(
        # Above 2^53, where neither fp32 nor fp64 has all integers.
        lambda model, name, tensor: tensor + 2**53 + 1 if name == "positions" else tensor
    )
    fused, wanted = subject.fuse(case), case.base.state_dict()
    for name in ("positions", "mask"):
        if not fused[name].equal(wanted[name]):
            raise Violation(
                f"{name}, {wanted[name].dtype} and equal in all models, changed",
                measured=fused[name].tolist(),
                bound=wanted[name].tolist(),
            )
    _one_is_taken(subject, subject.case("plain_lm"), "positions")


@check("FM-209", requires=("FM-201", "FM-202", "FM-208"))
def batch_norm(subject: MethodSubject) -> None:
    """What batch normalisation remembers stays sensible: one model's counter, no negative variance.

    A negative variance turns every output into NaN, long after fusing.

    Fix: average running statistics, or take the base's; take one model's `num_batches_tracked`, or the
    largest.
    """
    subject.needs_weights()
    case = subject.case("conv_bn")
    lowest = float(subject.fused("conv_bn")["bn.running_var"].min())
    if lowest < 0:
        raise Violation(
            "bn.running_var, a variance, is negative", measured=f"{lowest:.3g}", bound="0 or more"
        )
    _one_is_taken(subject, case, "bn.num_batches_tracked")


def _one_is_taken(subject: MethodSubject, case: Case, name: str) -> None:
    """Look at an integer tensor that differs between the models.

    Raises:
        Violation: if the result has something that is neither one of the inputs nor their maximum, or if
            there is an error that does not name the tensor.
    """
    import torch

    offsets = dict(zip((None, *case.models), _OFFSETS))
    case = case.changed(lambda model, key, tensor: tensor + offsets[model] if key == name else tensor)
    try:
        found = subject.fuse(case)[name]
    except FusionError as error:
        crashed = error.__cause__ is not None and not isinstance(error.__cause__, FusionError)
        if crashed or name not in str(error):
            raise Violation(
                f"the error about {name}, which differs between the models, does not name it"
                if not crashed
                else f"it crashes on {name}, which differs between the models",
                measured=str(error).splitlines()[0],
            ) from error
        return
    values = [_state(case, model)[name] for model in (None, *case.models)]
    if not any(found.equal(value) for value in (*values, torch.stack(values[1:]).amax(0))):
        raise Violation(
            f"{name} differs between the models, and the result has neither one's nor the largest",
            measured=found.tolist(),
            bound=" or ".join(str(value.tolist()) for value in values),
        )


def _state(case: Case, model: str | None) -> Mapping[str, Tensor]:
    return (case.base if model is None else case.models[model]).state_dict()
