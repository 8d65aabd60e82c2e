"""C kernels: compiled when that pays, used if they agree, and never needed."""

from __future__ import annotations

import ctypes
import shutil
import stat
from pathlib import Path

import pytest
import torch

from fusionbench_core import NativeKernels, NonFiniteInput, fuse, native, randomness
from fusionbench_core.methods import arithmetic

needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

SOURCE = "#include <stdint.h>\nint64_t twice(int64_t number) { return 2 * number; }\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FB_NATIVE", raising=False)


@pytest.fixture
def kernels(tmp_path):
    def make(text=SOURCE, agrees=lambda library: True):
        source = tmp_path / "twice.c"
        source.write_text(text)
        return NativeKernels(source, {"twice": (ctypes.c_int64,)}, agrees)

    return make


def cached() -> list[Path]:
    return sorted(native.cache_dir("native").iterdir())


@needs_a_compiler
def test_it_is_compiled_once_it_was_wanted_often_enough(kernels, monkeypatch):
    monkeypatch.setattr(native, "PAYS_FROM", 100)
    twice = kernels()
    assert twice.library(60) is None
    assert cached() == []
    twice.library(60)
    library = twice.compiled()
    assert library is not None
    assert library.twice(21) == 42
    assert [file.suffix for file in cached()] == [".so"]


@needs_a_compiler
def test_what_was_compiled_once_is_used_from_the_start(kernels):
    assert kernels().compiled() is not None
    again = kernels().library(1)
    assert again is not None
    assert again.twice(4) == 8


@needs_a_compiler
def test_another_source_is_another_library(kernels):
    kernels().compiled()
    thrice = kernels(SOURCE.replace("2 *", "3 *"))
    assert thrice.library(1) is None
    library = thrice.compiled()
    assert library is not None
    assert library.twice(4) == 12


@needs_a_compiler
def test_what_others_may_have_written_is_not_loaded(kernels):
    kernels().compiled()
    (file,) = cached()
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    assert kernels().library(1) is None


@needs_a_compiler
@pytest.mark.parametrize(
    ("text", "agrees"),
    [("no C", lambda library: True), (SOURCE, lambda library: False), ("int other;", lambda library: True)],
    ids=["cannot be compiled", "gives other results", "lacks a function"],
)
def test_what_cannot_be_used_is_not_used(kernels, text, agrees):
    assert kernels(text, agrees).compiled() is None


def test_without_a_compiler_there_is_none(kernels, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert kernels().compiled() is None


def test_it_can_be_switched_off(kernels, monkeypatch):
    monkeypatch.setenv("FB_NATIVE", "0")
    assert kernels().compiled() is None


@pytest.fixture
def in_c(monkeypatch, tmp_path_factory):
    """The arithmetic of merges, in C; compiled once for all tests."""
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kernels"))
    known = arithmetic._KERNELS
    fresh = NativeKernels(known._source, known._functions, known._agrees)
    monkeypatch.setattr(arithmetic, "_KERNELS", fresh)
    if fresh.compiled() is None:
        pytest.skip("needs a C compiler, and a processor with fused multiplication and addition")


def models(dtype, count=3):
    generator = torch.Generator().manual_seed(5)
    scales = torch.logspace(-30, 30, 1001, dtype=torch.float64)
    each = torch.randn(count + 1, 1001, generator=generator, dtype=torch.float64) * scales
    base, *others = ({"w": one.to(dtype), "b": one[:3].to(dtype).view(3, 1)} for one in each)
    return base, dict(zip("abc", others))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["simple_average", "task_arithmetic", "weighted_average"])
def test_merges_have_the_bits_that_torch_gives(in_c, monkeypatch, method, dtype):
    base, experts = models(dtype)
    found = fuse(method, models=experts, base=base)
    monkeypatch.setattr(arithmetic._KERNELS, "library", lambda entries: None)
    wanted = fuse(method, models=experts, base=base)
    for name, tensor in wanted.items():
        assert torch.equal(found[name].view(torch.int8), tensor.view(torch.int8)), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_inf_are_seen(in_c, dtype, bad):
    base, experts = models(dtype)
    experts["b"]["w"][500] = bad
    for method in ("simple_average", "task_arithmetic"):
        with pytest.raises(NonFiniteInput, match="1 of 1001") as caught:
            fuse(method, models=experts, base=base)
        assert caught.value.where["model"] == "b"


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (70_000, 200_000), (5, 5)])
def test_random_numbers_are_those_that_torch_draws(monkeypatch, tmp_path_factory, start, stop):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kernels"))
    kernels = randomness._KERNELS
    fresh = NativeKernels(kernels._source, kernels._functions, kernels._agrees)
    monkeypatch.setattr(randomness, "_KERNELS", fresh)
    if fresh.compiled() is None:
        pytest.skip("needs a C compiler")
    found = randomness.uniform_block(3, "model", "tensor", start, stop)
    monkeypatch.setattr(fresh, "library", lambda entries: None)
    assert torch.equal(found, randomness.uniform_block(3, "model", "tensor", start, stop))
