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


def merge_into(
    module: nn.Module, pool: ModelPool, scaling_factor: float | None = None, *, leave: Collection[str] = ()
) -> None:
    """Merge the models into `module`, which is the base's: task arithmetic, or their mean.

    Tensors out of scope, absent from some model, or inside the submodules named in `leave` stay. Buffers such
    as running statistics are averaged in any case: sums of differences could make a variance negative.

    Args:
        module: What is overwritten.
        pool: The models.
        scaling_factor: Multiplies the sum of the task vectors; None for the mean.
        leave: Dotted names of submodules.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    mean = 1 / len(pool)
    seen = set()
    inside = tuple(f"{name}." for name in leave)
    for key, base in module.state_dict().items():
        everywhere = all(key in pool.checkpoint(model) for model in pool)
        if not base.is_floating_point() or not everywhere or key.startswith(inside):
            continue
        if base.data_ptr() in seen and base.numel():
            continue
        seen.add(base.data_ptr())
        scale = mean if scaling_factor is None or key not in parameters else scaling_factor
        # base + sum of differences, not a sum of models: exact where the models equal the base
        total = sum(task_tensor(pool, model, key, base) for model in pool)
        base.copy_(base + scale * total)
