"""Make what a model method gives a whole, sound state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench_core.dtypes import dtype_name
from fusionbench_core.errors import MethodError
from fusionbench_core.pools.pool import ModelPool


def complete_state(
    state: Mapping[str, Tensor], pool: ModelPool, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """`state` in the reference model's names, order and dtypes; tensors that are absent come from there.

    Args:
        state: Some or all tensors of the architecture.
        pool: Whose base, or first model, is the reference.
        dtype: Floating dtype of the result; None for the reference's.

    Raises:
        MethodError: if a tensor has another shape, is NaN or Inf, or overflows its dtype.
    """
    reference = pool.reference_model.checkpoint
    complete = {}
    for name in reference:
        if name in reference.aliases and name not in state:
            continue
        info = reference.info(name)
        wanted = dtype if dtype is not None and info.is_floating else info.dtype
        if name not in state:
            complete[name] = reference.tensor(name).to(wanted, copy=True)
        else:
            complete[name] = _checked(name, state[name].detach().cpu(), info.shape, wanted)
    return complete


def _checked(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise MethodError(
            f"the method gave a tensor of another shape: {list(tensor.shape)} instead of {list(shape)}",
            tensor=name,
        )
    result = tensor.to(dtype, copy=True)
    if result.is_floating_point() and not torch.isfinite(result).all():
        overflow = bool(torch.isfinite(tensor).all())
        raise MethodError(
            f"the fused values overflow {dtype_name(dtype)}" if overflow else "the method gave NaN or Inf",
            tensor=name,
            fix="set engine.dtype to bfloat16 or float32" if overflow else "try a smaller learning rate",
        )
    return result
