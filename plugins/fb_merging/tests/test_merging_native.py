"""Trimming and electing in C gives the bits that torch gives."""

from __future__ import annotations

import pytest
import torch
from fb_merging.operations import native

from fusionbench_core import fuse

PARAMETERS = [
    {"density": 0.3},
    {"density": 0.3, "trim": "tensor", "weights": [0.2, 1.0, -0.5]},
    {"density": 1.0, "scaling_factor": 0.4},
    {"density": [0.01, 0.5, 0.9], "merge_func": "sum"},
]


@pytest.fixture
def in_c(monkeypatch, tmp_path):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    if native._KERNELS.compiled() is None:
        pytest.skip("needs a C compiler, and a processor with fused multiplication and addition")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_ties_merging_has_the_same_bits(in_c, monkeypatch, parameters, dtype):
    generator = torch.Generator().manual_seed(1)
    base, *experts = (
        {f"layers.{layer}.w": torch.randn(40, 31, generator=generator).to(dtype) for layer in range(20)}
        for _ in range(4)
    )
    experts[0]["layers.0.w"] = base["layers.0.w"]
    experts[2]["layers.1.w"] = 2 * base["layers.1.w"] - experts[1]["layers.1.w"]
    models = dict(zip("abc", experts))
    found = fuse("ties_merging", models=models, base=base, **parameters)
    monkeypatch.setattr(native, "library_for", lambda *tensors: None)
    wanted = fuse("ties_merging", models=models, base=base, **parameters)
    for name, tensor in wanted.items():
        assert torch.equal(found[name].view(torch.int8), tensor.view(torch.int8)), name
