"""Names, shapes, dtypes, storage: what fused weights look like."""

from __future__ import annotations

from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.subject import MethodSubject


@check("FM-201")
def keys_in_order(subject: MethodSubject) -> None:
    """Fused weights have the names of the inputs, in their order.

    A missing or an extra name makes the result load nowhere; another order changes the files.

    Fix: give one tensor for each name of the base, or of the first model where there is no base.
    """
    subject.needs_weights()
    for name in ("mlp", "tied_lm"):
        case = subject.case(name)
        wanted, found = list(case.base.state_dict()), list(subject.fuse(case))
        if found != wanted:
            lost, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
            raise Violation(
                f"names of {name} changed: "
                + (f"missing {lost}, extra {extra}" if lost or extra else "another order"),
                measured=found,
                bound=wanted,
            )


@check("FM-203")
def dtype_kept(subject: MethodSubject) -> None:
    """Every tensor keeps its dtype.

    A model that grows from bfloat16 to float32 is twice as large and does not load as it was.

    Fix: cast the result to the dtype of the input; compute in the accumulation dtype meanwhile.
    """
    import torch

    subject.needs_weights()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        case = subject.case("mlp", dtype=dtype)
        for name, tensor in subject.fuse(case).items():
            if tensor.dtype != dtype:
                raise Violation(f"{name} changed its dtype", measured=tensor.dtype, bound=dtype)
