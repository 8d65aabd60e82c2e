"""The plan says what a merge takes; the budget lets as many workers in as fit, or is refused."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements
from fusionbench_core.engine import sizes
from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.errors import InsufficientResources
from fusionbench_core.pools import ModelPool, PooledModel

SIDE = 100
COPIES = 3 * 2 + 4
"""What two models take: three copies each, and four besides."""
NEED = COPIES * 4 * SIDE * SIDE


class Together:
    """How many are inside at a time, at most."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._now -= 1


inside = Together()


@implements(
    MethodRecord(
        name="hungry",
        target=f"{__name__}:Hungry",
        summary="sums, and takes its time",
        capabilities=Capabilities(locality="tensor", scratch=(3, 4)),
    )
)
class Hungry(TensorMethod):
    def merge(self, group):
        with inside:
            time.sleep(0.01)  # Long enough for the others to come in, if they may.
            return group.total()

    def scratch(self, name, shape, models):
        return 1.0 if "small" in name else super().scratch(name, shape, models)


@pytest.fixture
def pool():
    generator = torch.Generator().manual_seed(3)
    names = ["a", "b", "c", "d", "small"]

    def model(name):
        state = {each: torch.randn(SIDE, SIDE, generator=generator) for each in names}
        return PooledModel(name, content=state)

    return ModelPool({"one": model("one"), "two": model("two")}, None)


def test_the_plan_counts_what_the_largest_pieces_in_flight_take(pool):
    for threads in (1, 2, 4):
        assert make_plan(Hungry(), pool, EngineOptions(threads=threads)).peak_bytes == threads * NEED
    # Of five tensors only four are large.
    assert make_plan(Hungry(), pool, EngineOptions(threads=9)).peak_bytes == 4 * NEED + 4 * SIDE * SIDE


def test_a_method_says_more_of_single_tensors(pool):
    needs = make_plan(Hungry(), pool, EngineOptions()).needs
    assert needs == {**dict.fromkeys("abcd", NEED), "small": 4 * SIDE * SIDE}


@pytest.mark.parametrize(("budget", "workers"), [(NEED, 1), (2 * NEED, 2), (None, 4)])
def test_as_many_workers_merge_at_a_time_as_fit_in_the_budget(pool, budget, workers, monkeypatch):
    monkeypatch.setitem(globals(), "inside", Together())
    options = EngineOptions(threads=4, memory_budget=budget)
    assert make_plan(Hungry(), pool, options).peak_bytes == workers * NEED
    merged = merge_in_memory(Hungry(), pool, options=options)
    assert 1 <= inside.most <= (workers if budget else 4)
    for name in "abcd":
        wanted = pool["one"].checkpoint.tensor(name) + pool["two"].checkpoint.tensor(name)
        assert torch.equal(merged[name], wanted)


def test_a_budget_below_one_piece_is_refused_with_the_smallest_that_would_do(pool):
    with pytest.raises(InsufficientResources) as caught:
        make_plan(Hungry(), pool, EngineOptions(memory_budget=NEED - 1))
    assert caught.value.where["tensor"] == "a float32[100, 100]"
    assert f"{-(-NEED // 10**6)}MB" in caught.value.fix
    make_plan(Hungry(), pool, EngineOptions(memory_budget=NEED))


def test_a_declaration_that_is_no_pair_of_numbers_is_refused():
    for wrong in ((1,), (1, -1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="scratch"):
            Capabilities(scratch=wrong)  # type: ignore[arg-type]


def test_free_memory_is_what_the_container_leaves(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    monkeypatch.setattr(sizes, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(sizes, "_CONTAINER", tmp_path)
    assert sizes.available_memory() == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\ninactive_file 1500000\n")
    assert sizes.available_memory() == 5_000_000 - 3_000_000 + 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert sizes.available_memory() == 8000 * 1024
