"""Settings of PyTorch that belong to the user: they decide how fast something runs, never what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.tolerance import assert_close, deviation, same_bits

_LEARNED = 1e3
"""How many times more the rounding of a forward pass may show in what is learned from it."""


@check("FM-225", required=False, level="full")
def any_number_of_threads(subject: MethodSubject) -> None:
    """The number of threads does not change a bit of the result; of what is learned, the rounding at most.

    Results that depend on the machine cannot be reproduced on another one.

    Fix: never divide work by `torch.get_num_threads()`; sum in a fixed order.
    """
    import torch

    with _setting(torch.get_num_threads, torch.set_num_threads, 1):
        wanted = _result(subject, engine={"threads": 1})
    with _setting(torch.get_num_threads, torch.set_num_threads, 3):
        _same(subject, _result(subject, engine={"threads": 3}), wanted, "3 threads instead of 1")


@check("FM-226", required=False, level="full")
def any_default_precision(subject: MethodSubject) -> None:
    """PyTorch's default dtype and its precision of matrix products do not change a bit of the result.

    Scripts set both for their own forward passes; the same models would fuse to something else there.

    Fix: give every new tensor a dtype, e.g. with `zeros_like` or `new_tensor`; multiply matrices in fp64
    where their product becomes a weight.
    """
    import torch

    wanted = _result(subject)
    with _setting(torch.get_default_dtype, torch.set_default_dtype, torch.float64):
        _same(subject, _result(subject), wanted, "float64 as the default dtype")
    declared = subject.record.capabilities
    if declared.tasks or declared.statistics:
        # The precision of the models' own forward passes is the user's choice, and what is learned follows.
        return
    precision = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    with _setting(*precision, "medium"):
        _same(subject, _result(subject), wanted, "torch.set_float32_matmul_precision('medium')")


def _result(subject: MethodSubject, **options: Any) -> dict[str, Any]:
    return subject.fuse(subject.case("vit_tiny"), **options)


def _same(subject: MethodSubject, found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    declared = subject.record.capabilities
    if declared.tasks or declared.statistics:
        # Forward passes are the model's own code: PyTorch splits their sums among threads.
        assert_close(found, wanted, [wanted], f"with {what} the result is another one", k=_LEARNED)
        return
    name = same_bits(found, wanted)
    if name is None:
        return
    off = f"{deviation(found[name], wanted[name]):.3g}" if name in found and name in wanted else None
    raise Violation(f"with {what} {name} is another one", measured=off, bound="the same bits")


@contextmanager
def _setting(read: Callable[[], Any], write: Callable[[Any], None], value: Any) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)
