"""Working memory."""

from __future__ import annotations

from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject

_SIDE = 384
"""Rows and columns of the matrix that is merged: half a megabyte, far above what the allocator wavers by."""

_MIB = 2**20

_SLACK = _MIB
"""Bytes by which the allocator may waver."""


@check("FM-409", level="full", requires=("FM-402",))
def scratch(subject: MethodSubject) -> None:
    """Merging one tensor takes no more memory than is declared.

    The plan says how much memory a merge takes, and the memory budget lets as many workers in as fit; both
    go by the declaration. Measured on one square matrix.

    Fix: declare what it takes, `Capabilities(scratch=(copies a model, copies besides))`, in copies of the
    tensor in the dtype of the arithmetic; or free early what is not needed any more.
    """
    from fusionbench_core.allocator import freed_memory_given_back
    from fusionbench_core.methods import TensorMethod
    from fusionbench_core.testing.artefacts import takes_base
    from fusionbench_core.testing.lazy import LargeModel, large_pool
    from fusionbench_core.testing.memory import anonymous_memory, peak_growth
    from fusionbench_core.testing.method_checks.streaming import stream

    subject.needs_streaming()
    if subject.capabilities.locality != "tensor":
        raise Inapplicable("its tensors are cut into small pieces")
    if anonymous_memory() is None:
        raise Inapplicable("this system does not say how much anonymous memory a process has")
    shape = (_SIDE, _SIDE)
    warm, pool = (
        large_pool(subject.count(), 1, base=takes_base(subject), shape=each) for each in ((8, 8), shape)
    )
    name = LargeModel(0, 1).keys()[0]
    method = subject.method(pool.names)
    assert isinstance(method, TensorMethod)
    copies = method.scratch(name, shape, len(pool))
    allowed = copies * 4 * _SIDE**2 + _SLACK
    with freed_memory_given_back():
        stream(subject, warm)
        taken = peak_growth(lambda: stream(subject, pool), interval=0.0005)
    if taken > allowed:
        raise Violation(
            f"merging a matrix from {len(pool)} models takes more memory than it declares",
            measured=f"{taken / (4 * _SIDE**2):.1f} copies of it",
            bound=f"{copies:g} copies: {method.capabilities.scratch}, of a model and besides",
            false_declaration=True,
        )
