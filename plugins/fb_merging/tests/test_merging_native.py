"""Trimming and electing in C gives the bits that torch gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from fb_merging.operations import native

from fusionbench_core import NativeKernels, NonFiniteInput, fuse

TIES = [
    {"density": 0.3},
    {"density": 0.3, "trim": "tensor", "weights": [0.2, 1.0, -0.5]},
    {"density": 1.0, "scaling_factor": 0.4},
    {"density": [0.01, 0.5, 0.9], "merge_func": "sum"},
    {"density": 0.5, "merge_func": "max", "weights": [1.0, -2.0, 0.3]},
]
METHODS = [
    *(("ties_merging", parameters) for parameters in TIES),
    ("breadcrumbs", {"density": 0.3, "gamma": 0.1}),
    ("breadcrumbs", {"density": [0.2, 1.0, 0.7], "gamma": 0.2}),
    ("breadcrumbs_ties", {"density": 0.4, "weights": {"a": 0.5, "b": 2.0, "c": 1.0}}),
    ("dare_linear", {"density": 0.3}),
    ("dare_linear", {"density": [0.3, 1.0, 0.9], "rescale": "l1"}),
    ("dare_ties", {"density": 0.3}),
    ("dare_ties", {"density": [0.3, 1.0, 0.9], "rescale": "none", "trim_density": 0.4, "merge_func": "max"}),
    ("dare_ties", {"density": 0.3, "trim": "tensor"}),
    ("dare_ties", {"density": 0.3, "trim_density": 1.0, "weights": [0.2, 1.0, -0.5]}),
    ("della", {"density": [0.3, 1.0, 0.7], "epsilon": 0.2, "window": "tensor"}),
    ("task_vector_merging", {"sparsify": ["magprune", "magnitude"], "combine": "elect"}),
    ("task_vector_merging", {"sparsify": ["random", "breadcrumbs"], "combine": "sum"}),
    ("task_vector_merging", {"sparsify": ["magnitude", "random"], "combine": "elect"}),
    ("della", {"density": 0.3, "epsilon": 0.2}),
    ("della_linear", {"density": 0.3, "epsilon": 0.2, "rescale": "none"}),
    ("task_vector_merging", {"combine": {"name": "sum", "normalize": True}, "weights": [1.0, 0.2, 3.0]}),
]


def fused_multiply_add() -> bool:
    """Whether this is surely a processor that has it."""
    known = Path("/proc/cpuinfo")
    return known.is_file() and " fma " in known.read_text()


@pytest.fixture
def in_c(monkeypatch, tmp_path_factory):
    # Compiled once for all tests.
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kernels"))
    known = native._KERNELS
    fresh = NativeKernels(known._source, known._functions, known._agrees)
    monkeypatch.setattr(native, "_KERNELS", fresh)
    if fresh.compiled() is None:
        assert not (shutil.which("cc") and fused_multiply_add()), "it does not give the bits of torch"
        pytest.skip("needs a C compiler, and a processor with fused multiplication and addition")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "parameters"), METHODS, ids=str)
def test_sparse_merging_has_the_same_bits(in_c, monkeypatch, method, parameters, dtype):
    generator = torch.Generator().manual_seed(1)
    base, *experts = (
        {f"layers.{layer}.w": torch.randn(40, 31, generator=generator).to(dtype) for layer in range(20)}
        for _ in range(4)
    )
    experts[0]["layers.0.w"] = base["layers.0.w"]
    experts[2]["layers.1.w"] = 2 * base["layers.1.w"] - experts[1]["layers.1.w"]
    models = dict(zip("abc", experts))
    found = fuse(method, models=models, base=base, **parameters)
    monkeypatch.setattr(native, "library_for", lambda entries: None)
    wanted = fuse(method, models=models, base=base, **parameters)
    for name, tensor in wanted.items():
        assert torch.equal(found[name].view(torch.int8), tensor.view(torch.int8)), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("method", ["ties_merging", "dare_linear", "dare_ties", "della"])
def test_nan_and_inf_are_seen_where_updates_are_trimmed_or_dropped(in_c, method, density, bad):
    generator = torch.Generator().manual_seed(1)
    base, *experts = ({"w": torch.randn(5000, generator=generator)} for _ in range(3))
    experts[1]["w"][4500] = bad
    with pytest.raises(NonFiniteInput, match="1 of 5000") as caught:
        fuse(method, models=dict(zip("ab", experts)), base=base, density=density)
    assert caught.value.where["model"] == "b"


@pytest.mark.parametrize("mixed", [(torch.bfloat16, torch.float32), (torch.float32, torch.float16)])
def test_models_of_several_dtypes_merge_as_in_torch(in_c, monkeypatch, mixed):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(3, 3000, generator=generator)
    base, one, other = (
        {"w": each.to(dtype)} for each, dtype in zip(values, (torch.float32, *mixed), strict=True)
    )
    found = fuse("ties_merging", models={"a": one, "b": other}, base=base)
    monkeypatch.setattr(native, "library_for", lambda entries: None)
    wanted = fuse("ties_merging", models={"a": one, "b": other}, base=base)
    assert torch.equal(found["w"], wanted["w"])


@pytest.mark.parametrize("columns", [2, 255, 1024, 1500, 70_000])
def test_magnitudes_that_differ_in_their_last_bits_are_ranked(in_c, monkeypatch, columns):
    generator = torch.Generator().manual_seed(3)
    close = 1 + torch.randperm(3 * columns, generator=generator).view(3, columns) // 3 * 2.0**-23
    sign = torch.randn(3, columns, generator=generator).sign()
    models = {"a": {"w": close * sign}, "b": {"w": torch.zeros(3, columns)}}
    base = {"w": torch.zeros(3, columns)}
    found = fuse("della", models=models, base=base, epsilon=0.2)
    monkeypatch.setattr(native, "library_for", lambda entries: None)
    wanted = fuse("della", models=models, base=base, epsilon=0.2)
    assert found["w"].count_nonzero()
    assert torch.equal(found["w"], wanted["w"])
