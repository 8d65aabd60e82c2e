"""What is slow to compute is kept on disk, used again for other coefficients, and changes no bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pydantic import Field

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements
from fusionbench_core.engine.cache import TensorCache
from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.pools import ModelPool, PooledModel

SIDE = 256
SIZE = 4 * SIDE * SIDE

computed: list[str] = []
"""Names of the tensors that were computed, each time anew."""


@implements(
    MethodRecord(
        name="slow",
        target=f"{__name__}:Slow",
        summary="takes long over something that a coefficient multiplies",
        capabilities=Capabilities(base="required", locality="tensor"),
    )
)
class Slow(TensorMethod):
    scaling_factor: float = Field(default=1.0)
    power: int = Field(default=2)

    def merge(self, group):
        def compute():
            computed.append(group.name)
            return sum(delta**self.power for delta in group.deltas)

        found = group.cached(self, group.deltas, compute, apart_from=("scaling_factor",))
        return group.base + self.scaling_factor * found


@implements(
    MethodRecord(
        name="drawn",
        target=f"{__name__}:Drawn",
        summary="random numbers",
        capabilities=Capabilities(base="required", locality="tensor", random=True),
    )
)
class Drawn(TensorMethod):
    def merge(self, group):
        return group.cached(self, group.deltas, lambda: group.uniform(group.names[0]).clone())


def pool(shift=0.0):
    generator = torch.Generator().manual_seed(11)
    state = {name: torch.randn(SIDE, SIDE, generator=generator) for name in ("w", "v")}
    tuned = {
        name: value + torch.randn(SIDE, SIDE, generator=generator) + shift for name, value in state.items()
    }
    return ModelPool({"tuned": PooledModel("tuned", content=tuned)}, PooledModel("_base_", content=state))


def merged(method=None, *, shift=0.0, cache_size=10**8, seed=0, **parameters):
    options = EngineOptions(threads=2, cache_size=cache_size)
    return merge_in_memory(method or Slow(**parameters), pool(shift), options=options, seed=seed)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    computed.clear()
    return tmp_path / "tensors"


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_sweep_over_a_coefficient_pays_once_and_gives_the_same_bits(place):
    without = [merged(scaling_factor=factor, cache_size=0) for factor in (1.0, 0.3)]
    assert len(computed) == 4
    assert not place.exists()
    found = [merged(scaling_factor=factor) for factor in (1.0, 0.3)]
    assert sorted(computed[4:]) == ["v", "w"]
    assert same(found[0], without[0])
    assert same(found[1], without[1])
    assert {file.suffix for file in place.iterdir()} == {".safetensors"}


@pytest.mark.parametrize("other", [{"power": 3}, {"shift": 1e-6}], ids=["a parameter", "the models"])
def test_what_decides_the_result_is_told_apart(other):
    merged()
    changed = merged(**other)
    assert len(computed) == 4
    assert same(changed, merged(cache_size=0, **other))


def test_random_numbers_are_told_apart_by_their_seed():
    first, second = merged(Drawn(), seed=1), merged(Drawn(), seed=2)
    assert not torch.equal(first["w"], second["w"])
    assert not torch.equal(first["w"], first["v"])
    assert same(merged(Drawn(), seed=1), first)


def test_a_changed_source_is_told_apart(monkeypatch):
    merged()
    monkeypatch.setattr("fusionbench_core.engine.cache._code", lambda package: b"another")
    merged()
    assert len(computed) == 4


def test_a_file_that_was_cut_short_is_computed_anew(place):
    wanted = merged()
    for file in place.iterdir():
        os.truncate(file, 100)
    assert same(merged(), wanted)
    assert len(computed) == 4
    assert same(merged(), wanted)
    assert len(computed) == 4


def test_what_was_used_longest_ago_makes_room_and_the_bound_holds(tmp_path):
    for number in range(4):
        cache = TensorCache(tmp_path, 3 * SIZE + 3000)
        cache.get({"number": number}, (), [torch.zeros(SIDE, SIDE)], lambda: torch.zeros(SIDE, SIDE))
        for file in tmp_path.iterdir():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 100))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3 * SIZE + 3000
    calls = []
    for number in (3, 2, 1, 0):
        cache.get({"number": number}, (), [torch.zeros(SIDE, SIDE)], lambda n=number: kept(calls, n))
    assert calls == [0]


def kept(calls: list[int], number: int) -> torch.Tensor:
    calls.append(number)
    return torch.zeros(SIDE, SIDE)


def test_a_sweep_over_more_than_fits_still_finds_what_was_kept(tmp_path):
    calls: list[int] = []
    for _ in range(2):
        cache = TensorCache(tmp_path, 2 * SIZE + 3000)
        for number in range(4):
            cache.get({"number": number}, (), [torch.zeros(SIDE, SIDE)], lambda n=number: kept(calls, n))
    assert calls == [0, 1, 2, 3, 2, 3]


def test_without_a_place_to_keep_them_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path / "file"))
    assert TensorCache.of_user(10**6) is None
    merged()
    assert sorted(computed) == ["v", "w"]


def test_small_tensors_are_not_worth_a_file(tmp_path):
    cache = TensorCache(tmp_path, 10**9)
    cache.get({}, (), [torch.zeros(8, 8)], lambda: torch.zeros(8, 8))
    assert not list(Path(tmp_path).iterdir())
