"""Fuse three models in memory: two "experts" and the base they were trained from."""

# ruff: noqa: T201
import torch

from fusionbench_core import fuse

base = {"weight": torch.zeros(2, 2)}
experts = {
    "digits": {"weight": torch.tensor([[1.0, 0.0], [0.5, -2.0]])},
    "letters": {"weight": torch.tensor([[3.0, 1.0], [-1.0, 0.0]])},
}

print(fuse("simple_average", experts)["weight"].tolist())
print(fuse("task_arithmetic", experts, base, scaling_factor=0.5)["weight"].tolist())
print(fuse("ties_merging", experts, base, density=0.5)["weight"].tolist())
