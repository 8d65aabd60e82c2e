"""Read single tensors of a pool's models, for methods that take a base module apart layer by layer."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from fusionbench_core import IncompatibleModels, ModelPool, NonFiniteInput


def model_tensor(pool: ModelPool, model: str, key: str, base: Tensor) -> Tensor:
    """Tensor `key` of `model`, at least in fp32; the base's for a tensor out of scope.

    Raises:
        IncompatibleModels: if the model has no such tensor, or one of another shape.
        NonFiniteInput: if it holds NaN or Inf.
    """
    wide = torch.promote_types(base.dtype, torch.float32)
    if not pool.merges(key):
        return base.to(wide)
    checkpoint = pool.checkpoint(model)
    if key not in checkpoint or checkpoint.info(key).shape != tuple(base.shape):
        found = "is missing" if key not in checkpoint else f"is {checkpoint.info(key)}"
        raise IncompatibleModels(
            f"model {model!r} does not fit the base",
            tensor=key,
            why=f"it {found}, the base has shape {list(base.shape)}",
            fix="leave the tensor out with modelpool.scope.exclude, or name it in modelpool.heads",
        )
    tensor = checkpoint.tensor(key).to(wide)
    if not torch.isfinite(tensor).all():
        raise NonFiniteInput(f"a tensor of model {model!r} holds NaN or Inf", tensor=key, fix="leave it out")
    return tensor


def task_tensor(pool: ModelPool, model: str, key: str, base: Tensor) -> Tensor:
    """Tensor `key` of `model` minus `base`, at least in fp32; zeros for a tensor out of scope.

    Raises:
        IncompatibleModels: if the model has no such tensor, or one of another shape.
        NonFiniteInput: if it or the base holds NaN or Inf.
    """
    delta = model_tensor(pool, model, key, base) - base
    if not torch.isfinite(delta).all():
        raise NonFiniteInput(f"a tensor of model {model!r} or of the base holds NaN or Inf", tensor=key)
    return delta


def average_into(module: nn.Module, pool: ModelPool, *, leave: Collection[str] = ()) -> None:
    """Overwrite the floating-point tensors of `module`, which are the base's, by the mean of the models.

    Tensors out of scope, absent from some model, or inside the submodules named in `leave` stay.
    """
    seen = set()
    inside = tuple(f"{name}." for name in leave)
    for key, base in module.state_dict().items():
        everywhere = all(key in pool.checkpoint(model) for model in pool)
        if not base.is_floating_point() or not everywhere or key.startswith(inside):
            continue
        if base.data_ptr() in seen and base.numel():
            continue
        seen.add(base.data_ptr())
        # base + mean of differences, not the mean itself: exact where the models equal the base
        total = sum(task_tensor(pool, model, key, base) for model in pool)
        base.copy_(base + total / len(pool))
