"""All tensors of a checkpoint, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.testing.check import Violation
from fusionbench_core.testing.tolerance import same_bits


def read_all(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor, read once."""
    return {name: checkpoint.tensor(name) for name in checkpoint}


def require_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Compare names, dtypes, shapes and bits, whatever the order.

    Raises:
        Violation: naming the first tensor that differs.
    """
    lost, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if lost or extra:
        raise Violation(f"{what}: missing {lost[:6]}, extra {extra[:6]}")
    name = same_bits(found, wanted)
    if name is not None:
        raise Violation(f"{what}: {name} differs", measured=_facts(found[name]), bound=_facts(wanted[name]))


def _facts(tensor: Tensor) -> str:
    first = tensor.reshape(-1)[:3].to(torch.float64).tolist()
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}, {first}, …"
