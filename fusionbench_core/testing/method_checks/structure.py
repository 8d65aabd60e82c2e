"""Names, shapes, dtypes, devices, storage: what the result looks like, and what the inputs do afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fusionbench_core.errors import FusionError
from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.method_subject import MethodSubject

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fusionbench_core.testing.zoo import Case


@check("FM-201")
def keys_in_order(subject: MethodSubject) -> None:
    """Fused weights have the names of the inputs, in their order.

    A name that the models do not have is dropped without a word, or loads nowhere; another order changes
    the files.

    Fix: give tensors under the names of the base, or of the first model where there is no base. A model
    method may leave names out, and they are taken from there; none may be added.
    """
    subject.needs_weights()
    for name in ("mlp", "plain_lm"):
        case = subject.case(name)
        wanted, given = list(case.base.state_dict()), given_by(subject, name)
        # A model method may give some of the names, in any order: the core puts them in their places.
        found = list(given) if given.complete else [*wanted, *(k for k in given if k not in wanted)]
        if found != wanted:
            lost, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
            raise Violation(
                f"names of {name} changed: "
                + (f"missing {lost}, extra {extra}" if lost or extra else "another order"),
                measured=found,
                bound=wanted,
            )


@check("FM-202")
def shapes_kept(subject: MethodSubject) -> None:
    """Every tensor keeps its shape.

    Padded embeddings or flattened matrices do not load into the architecture.

    Fix: give each tensor in the shape of the input of that name.
    """
    subject.needs_weights()
    for name in ("mlp", "conv_bn", "plain_lm"):
        case = subject.case(name)
        given = given_by(subject, name)
        for key, tensor in case.base.state_dict().items():
            if key in given and given[key].shape != tensor.shape:
                raise Violation(
                    f"{key} of {name} changed its shape",
                    measured=list(given[key].shape),
                    bound=list(tensor.shape),
                )


@check("FM-203")
def dtype_kept(subject: MethodSubject) -> None:
    """Every tensor keeps its dtype, also inside a module of a new architecture.

    A model that grows from bfloat16 to float32 is twice as large and does not run as it did.

    Fix: compute in the accumulation dtype, and cast the result to the dtype of the input; make new modules
    in the dtype of the pool's.
    """
    import torch

    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for name, tensor in subject.fused(dtype=str(dtype).removeprefix("torch.")).items():
            if tensor.is_floating_point() and tensor.dtype != dtype:
                raise Violation(f"{name} changed its dtype", measured=tensor.dtype, bound=dtype)


@check("FM-204")
def device_kept(subject: MethodSubject) -> None:
    """The result is where the models are.

    Tensors left on another device, or on `meta` without any values, fail at the first forward pass.

    Fix: move what was made elsewhere back to the device of the models; give every tensor of a module that
    was made on `meta` its values, buffers that are not in its state dict included.
    """
    case = subject.case("mlp")
    for name, tensor in tensors_of(subject.raw(case.models, case.base, tasks=case.tasks)):
        if tensor.device.type != "cpu":
            raise Violation(f"{name} is not where the models are", measured=tensor.device, bound="cpu")


@check("FM-206")
def inputs_unchanged(subject: MethodSubject) -> None:
    """The models and the base are the same after fusing, bit for bit.

    Whoever fuses twice in one notebook otherwise fuses something else the second time.

    Fix: never write in place to tensors of the pool or to live modules: clone first. Tensors in
    `group.models` and the modules that `pool.module()` gives are copies, and may be overwritten.
    """
    # The plainest first: a method may refuse the other.
    for pool in (*_pools(subject, "mlp"), *_pools(subject, "conv_bn")):
        before = {name: _picture(model) for name, model in pool.items()}
        _fuse(subject, pool)
        for name, model in pool.items():
            difference = _difference(before[name], _picture(model))
            if difference:
                raise Violation(f"fusing changed {difference} of {name}")


@check("FM-207")
def own_storage(subject: MethodSubject) -> None:
    """The result shares no memory with the models or the base.

    Training on, or writing to, a result that shares memory changes the models it was made of.

    Fix: clone what is passed on as it is; take modules from `pool.module()`, which copies.
    """
    for pool in _pools(subject, "mlp"):
        owners = {
            tensor.untyped_storage().data_ptr(): f"{name} of {model}"
            for model, content in pool.items()
            for name, tensor in tensors_of(content)
            if tensor.numel()
        }
        for name, tensor in tensors_of(_fuse(subject, pool)):
            owner = tensor.numel() and owners.get(tensor.untyped_storage().data_ptr())
            if owner:
                raise Violation(f"{name} of the result shares its memory with {owner}")


@check("FM-210", requires=("FM-201", "FM-202"))
def ties_kept(subject: MethodSubject) -> None:
    """Tied tensors stay tied, and are merged once.

    A language-model head that is no longer its embedding takes twice the memory, and where both names were
    merged by themselves the one that is loaded last wins.

    Fix: skip the names in `checkpoint.aliases`; give one tensor under one or under all of the tied names.
    """
    subject.needs_weights()
    case = subject.case("plain_lm")
    first, second = "embed.weight", "head.weight"
    given = given_by(subject, case.name)
    if second in given and (first not in given or not given[first].equal(given[second])):
        how = "merged apart" if first in given else f"given without {first}"
        raise Violation(f"{second}, which is tied to {first}, is {how}")
    fused = dict(tensors_of(subject.raw(case.models, case.base, tasks=case.tasks)))
    if fused.get(second, fused[first]).data_ptr() != fused[first].data_ptr():
        raise Violation(f"{second} is no longer tied to {first}: the two take memory twice")


@check("FM-224")
def no_gradients(subject: MethodSubject) -> None:
    """The result carries no gradients, nor do the models afterwards.

    A graph behind the result keeps every intermediate tensor in memory; parameters that ask for gradients
    slow evaluation down.

    Fix: fuse under `torch.no_grad()`, detach what was learned, and call `requires_grad_(False)` on a module.
    """
    for pool in _pools(subject, "mlp"):
        inputs = [each for content in pool.values() for each in tensors_of(content)]
        for _, tensor in inputs:
            tensor.requires_grad_(tensor.is_floating_point())
        for name, tensor in tensors_of(_fuse(subject, pool)):
            if tensor.requires_grad:
                how = "is part of a graph" if tensor.grad_fn else "asks for gradients"
                raise Violation(f"{name} of the result {how}")
        for name, tensor in inputs:
            if tensor.grad is not None:
                raise Violation(f"fusing left a gradient in {name} of the models")


class Given(dict[str, Any]):
    """Tensors that a method gives, by name; `complete` where it must give all of them."""

    complete: bool = True


def given_by(subject: MethodSubject, name: str) -> Given:
    """The tensors as a method gives them, before the core puts them in order, casts and completes them."""
    from fusionbench_core.methods import ModelMethod

    if not issubclass(subject.cls, ModelMethod):
        return Given(subject.fused(name))
    made = subject.__dict__.setdefault("given_before", {})
    if name not in made:
        made[name] = _given_by_model_method(subject, subject.case(name))
    return made[name]


def _given_by_model_method(subject: MethodSubject, case: Case) -> Given:
    from fusionbench_core.methods import Fused

    seen: list[Any] = []

    def fuse(method: Any, job: Any) -> Any:
        seen.append(subject.cls.fuse(method, job))
        return seen[-1]

    try:
        subject.overriding(fuse=fuse).fuse(case)
    except FusionError:
        # The core refuses some of what is looked at here; what else it refuses is the caller's failure.
        if not seen or not isinstance(seen[-1], Fused):
            raise
    fused = seen[-1]
    given = Given(fused.state or {} if fused.module is None else fused.module.state_dict())
    given.complete = fused.module is not None
    return given


def tensors_of(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a state dict, or of a module: also buffers that its state dict leaves out."""
    if isinstance(content, dict):
        yield from content.items()
    else:
        yield from content.named_parameters(remove_duplicate=False)
        yield from content.named_buffers(remove_duplicate=False)


def _pools(subject: MethodSubject, name: str) -> Iterator[dict[str, Any]]:
    """The base and the models of a case: as modules, then as state dicts where the method takes these."""
    case = subject.case(name)
    yield {"the base": case.base, **case.models}
    if subject.streams:
        models, base = case.states()
        yield {"the base": base, **models}


def _fuse(subject: MethodSubject, pool: dict[str, Any]) -> dict[str, Tensor] | nn.Module:
    base, *models = pool
    case = subject.case("mlp", count=len(models))
    return subject.raw({name: pool[name] for name in models}, pool[base], tasks=case.tasks)


def _picture(content: Any) -> dict[str, tuple[Any, ...]]:
    """What can be compared of every tensor and submodule of a state dict or module."""
    found: dict[str, tuple[Any, ...]] = {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, _bits(tensor))
        for name, tensor in tensors_of(content)
    }
    if not isinstance(content, dict):
        found |= {f"the mode of {name or 'the module'}": (m.training,) for name, m in content.named_modules()}
    return found


def _bits(tensor: Tensor) -> bytes:
    import torch

    return bytes(tensor.detach().contiguous().view(-1).view(torch.uint8).tolist())


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first name that differs, or nothing."""
    return next((name for name in {**before, **after} if before.get(name) != after.get(name)), "")
