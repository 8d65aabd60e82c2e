"""Values at the edge: what cancels, what is empty, zero, huge, tiny, or laid out another way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fusionbench_core.errors import FusionError
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.tolerance import assert_close, bound, deviation

if TYPE_CHECKING:
    from torch import Tensor

    from fusionbench_core.testing.zoo import Case

_GRID = 2**-10
"""Differences and sums of a few multiples of it are exact in fp32."""


@check("FM-205", requires=("FM-202",))
def finite(subject: MethodSubject) -> None:
    """Finite models give a finite result, also where their task vectors cancel or their entries are equal.

    Dividing by a norm, a variance or a sum that is 0 here gives NaN, and a model that answers nothing.

    Fix: guard every division, logarithm and root against the value it cannot take.
    """
    ordinary = subject.case("mlp")
    cases = {
        "an ordinary model": ordinary,
        "task vectors that add up to 0": _cancelling(ordinary),
        "tensors whose entries are all equal": ordinary.changed(lambda model, key, t: t.mean().expand_as(t)),
    }
    if subject.streams:
        scales = dict(zip((None, *ordinary.models), itertools.cycle((1.0, 1e-3, 1e6))))
        cases["models of very different magnitude"] = ordinary.changed(
            lambda model, key, tensor: tensor * scales[model]
        )
    # Last: a method may refuse this architecture.
    cases["batch normalisation"] = subject.case("conv_bn")
    for situation, case in cases.items():
        known = {"an ordinary model": "mlp", "batch normalisation": "conv_bn"}.get(situation)
        _needs_finite(subject, case, situation, known)


@check("FM-211", requires=("FM-201", "FM-202"))
def awkward_shapes(subject: MethodSubject) -> None:
    """Scalars, tensors of one entry and empty ones are merged like the others.

    Models have them: temperatures, gates, prompts of no tokens.

    Fix: index and rank flattened tensors, and think of n = 0 and of n - 1 = 0.
    """
    subject.needs_weights()
    shapes = {"scale": "a 0-d tensor", "one": "a tensor of one entry", "prompt": "an empty tensor"}
    case = subject.case("tied_lm")
    try:
        fused = subject.fuse(case)
    except FusionError as error:
        tensor = str(error.where.get("tensor", "")).split(" ")[0]
        raise Violation(f"it fails on {shapes.get(tensor, ' or '.join(shapes.values()))}: {error}") from error
    for name, what in shapes.items():
        wanted = case.base.state_dict()[name]
        if fused[name].shape != wanted.shape:
            raise Violation(
                f"{what} changed its shape", measured=list(fused[name].shape), bound=list(wanted.shape)
            )


@check("FM-212", level="full")
def strides(subject: MethodSubject) -> None:
    """How tensors lie in memory does not matter.

    Transposed weights, channels-last convolutions and views into one large buffer hold the same numbers.

    Fix: use `reshape` instead of `view`, and never reach for a tensor's storage.
    """
    import torch

    subject.needs_weights()
    names = ("mlp", "conv_bn")
    for case in (subject.case(name, dtype=torch.float64) for name in names):
        wanted = subject.fused(case.name, "float64")
        inputs = [case.base.state_dict(), *case.states()[0].values()]
        for module in (case.base, *case.models.values()):
            for parameter in module.parameters():
                parameter.data = _laid_out_otherwise(parameter.data)
        found = subject.run(case.models, case.base, tasks=case.tasks)
        # Learning amplifies the rounding of another order of summation.
        k = 1e6 if subject.record.capabilities.trains else 4.0
        assert_close(found, wanted, inputs, f"{case.name} with non-contiguous tensors fuses otherwise", k=k)


@check("FM-222", level="full")
def large_half_precision(subject: MethodSubject) -> None:
    """Values near the end of fp16 are merged right, or there is an error.

    65504 is the largest number in fp16: sums overflow to Inf, and clamping the Inf gives a wrong weight.

    Fix: compute in fp32 at least; leave the cast to fp16 to the core, which says so if it overflows.
    """
    import torch

    subject.needs_weights()
    declared = subject.record.capabilities
    if declared.tasks or declared.statistics:
        raise Inapplicable("it runs the models, and models with such weights give no finite output")
    half = _large(subject.case("mlp", dtype=torch.float16))
    wide = _large(subject.case("mlp", dtype=torch.float16), torch.float64)
    wanted = subject.fuse(wide)
    limit = torch.finfo(torch.float16).max
    fits = all(float(tensor.abs().max()) <= limit for tensor in wanted.values())
    try:
        found = subject.fuse(half)
    except FusionError as error:
        if fits:
            raise Violation(f"it fails on fp16 models although the result fits: {error}") from error
        return
    inputs = [half.base.state_dict(), *(model.state_dict() for model in half.models.values())]
    for name, tensor in wanted.items():
        allowed = bound(torch.float16, [state[name] for state in inputs])
        off = deviation(found[name], tensor)
        if off > allowed:
            raise Violation(
                f"{name} of fp16 models overflows silently, or is computed in fp16: it differs from fp64",
                measured=f"{off:.3g}",
                bound=f"{allowed:.3g}",
            )


@check("FM-223")
def zeros_and_subnormals(subject: MethodSubject) -> None:
    """Layers that no model changed, zeros and numbers close to zero give no NaN.

    Frozen layers and untouched embeddings have task vectors of zeros: their norm, and the cosine with them,
    are 0 / 0.

    Fix: say what a method does where a norm or a count is 0; most often, keep the base.
    """
    case = subject.case("mlp")
    tried = {
        "layers.0.weight": "a layer that one model left as it was",
        "layers.0.bias": "a tensor of zeros in the base and all models",
        "layers.1.weight": "a layer that no model changed",
        "layers.1.bias": "a tensor of subnormal numbers",
        "norm.bias": "a tensor of zeros in the base and in all models but one",
    }
    try:
        _needs_finite(subject, _with_zeros(case, tried), "")
    except (Violation, FusionError) as fault:
        # All at once is fast; which of them it is takes one run each.
        for name, what in tried.items():
            _needs_finite(subject, _with_zeros(case, {name: what}), what)
        raise fault


def _needs_finite(subject: MethodSubject, case: Case, situation: str, known: str | None = None) -> None:
    """Raise a violation unless the method gives finite weights, or a module with finite outputs.

    Args:
        known: Name of the case where it is as the zoo has it.
    """
    import torch

    try:
        if subject.gives_weights:
            found: Mapping[str, Tensor] = subject.fused(known) if known else subject.fuse(case)
        else:
            found = subject.outputs(subject.raw(case.models, case.base, tasks=case.tasks), case)
    except FusionError as error:
        raise Violation(f"it fails on {situation}: {error}") from error
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise Violation(f"NaN or Inf in {name}, from {situation}")


def _cancelling(case: Case) -> Case:
    """Models whose task vectors add up to 0 exactly; two or more of them."""
    first, *others = case.models
    states = {name: model.state_dict() for name, model in case.models.items()}
    base = case.base.state_dict()

    def change(model: str | None, key: str, tensor: Tensor) -> Tensor:
        start = (base[key] / _GRID).round() * _GRID
        step = ((states[first][key] - base[key]) / _GRID).round() * _GRID
        if model is None:
            return start
        return start + len(others) * step if model == first else start - step

    return case.changed(change)


def _laid_out_otherwise(tensor: Tensor) -> Tensor:
    """The same values in memory: dimensions in another order, or every other entry of a longer vector."""
    import torch

    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if tensor.ndim == 2:
        return tensor.T.contiguous().T
    room = tensor.new_full((2 * tensor.numel() + 1,), 3.0)
    view = room[1::2].view(tensor.shape) if tensor.ndim == 1 else tensor
    return view.copy_(tensor) if tensor.ndim == 1 else tensor


def _large(case: Case, dtype: object = None) -> Case:
    """The case with weights up to 6e4, in `dtype`, which holds the same values."""

    def change(model: str | None, key: str, tensor: Tensor) -> Tensor:
        return (tensor.double() / tensor.double().abs().max() * 6e4).to(tensor.dtype)

    large = case.floats_changed(change)
    if dtype is not None:
        for module in (large.base, *large.models.values()):
            module.to(dtype)  # type: ignore[call-overload]
    return large


def _with_zeros(case: Case, names: Mapping[str, str]) -> Case:
    base, (first, *_) = case.base.state_dict(), case.models

    def change(model: str | None, key: str, tensor: Tensor) -> Tensor:
        if key not in names:
            return tensor
        if key == "layers.0.weight":
            return base[key] if model == first else tensor
        if key == "layers.0.bias":
            return tensor * 0
        if key == "layers.1.weight":
            return base[key]
        if key == "layers.1.bias":
            return tensor * 1e-40
        return tensor if model == first else tensor * 0

    return case.changed(change)
