"""How long a merge would take is told as a range, from what was tried on this machine within a day."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from pydantic import Field

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements
from fusionbench_core.engine.calibration import estimate
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.pools import ModelPool, PooledModel

OPTIONS = EngineOptions(threads=1)

tried: list[tuple[int, ...]] = []


def method(locality, statistics=()):
    @implements(
        MethodRecord(
            name="waits",
            target=f"{__name__}:Waits",
            summary="as slow as it is told to be",
            capabilities=Capabilities(locality=locality, statistics=statistics),
        )
    )
    class Waits(TensorMethod):
        nanoseconds_an_entry: float = 0.0
        nanoseconds_an_operation: float = 0.0
        refused: tuple[int, ...] = Field(default=())

        def merge(self, group):
            tried.append(group.piece_shape)
            entries = group.models[0].numel()
            if self.refused:
                raise ValueError("made for other models")
            operations = entries * min(group.piece_shape)
            took = self.nanoseconds_an_entry * entries + self.nanoseconds_an_operation * operations
            until = time.perf_counter() + 1e-9 * took
            while time.perf_counter() < until:
                pass
            return group.models[0]

    return Waits


def pool(*shape):
    return ModelPool(
        {name: PooledModel(name, content={"w": torch.zeros(shape)}) for name in ("a", "b")}, None
    )


def seconds(chosen, models, output=Path("runs")):
    return estimate(chosen, make_plan(chosen, models, OPTIONS), models, OPTIONS, output)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    tried.clear()
    return tmp_path / "calibration"


def test_an_element_wise_merge_is_told_by_the_entry():
    # 100 ns an entry are 0.1 s for what is tried; of 20 million entries, 2 s.
    found = seconds(method("element")(nanoseconds_an_entry=100), pool(4000, 5000))
    assert 0.8 * 2 <= found.low < found.high
    assert found.high >= 2 * 2


def test_a_factorising_merge_is_told_by_the_entry_and_the_shorter_side():
    chosen = method("tensor")(nanoseconds_an_operation=40)
    square, half = seconds(chosen, pool(2000, 2000)), seconds(chosen, pool(1000, 1000))
    # 40 ns for each of 8e9 operations are 320 s.
    assert square.low < 320 < square.high
    assert square.high / half.high > 5


def test_what_was_tried_is_tried_again_after_a_day_only(place):
    chosen, models = method("element")(), pool(300, 300)
    seconds(chosen, models)
    assert tried
    tried.clear()
    seconds(chosen, models)
    assert not tried
    for file in place.iterdir():
        os.utime(file, (0, time.time() - 25 * 3600))
    seconds(chosen, models)
    assert tried


def test_nothing_is_told_of_what_cannot_be_tried():
    assert seconds(method("element", statistics=("gram",))(), pool(8, 8)) is None
    assert seconds(method("element")(refused=(1,)), pool(8, 8)) is None


def test_nothing_stays_where_the_disk_was_tried(tmp_path):
    output = tmp_path / "place"
    output.mkdir()
    assert seconds(method("element")(), pool(8, 8), output / "runs" / "mine").high > 0
    assert not list(output.iterdir())
