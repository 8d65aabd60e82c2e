"""What the plan says of the memory of ensembles."""

from __future__ import annotations

import pytest
import torch
from fb_ensemble.simple_ensemble import SimpleEnsemble
from fb_ensemble.soups.greedy_soup import GreedySoup

from fusionbench_core import ModelPool, ModelSource, PooledModel, SourceRecord, implements
from fusionbench_core import StateDictCheckpoint as Held
from fusionbench_core.engine.plan import make_plan

RECORD = SourceRecord(name="headers", target="x:Headers", summary="a hundred numbers")


@implements(RECORD)
class Headers(ModelSource):
    """A model that is on disk, as far as anybody can tell."""

    def open(self):
        return Held({"weight": torch.zeros(100, dtype=torch.bfloat16)}, self.path)

    def skeleton(self):
        raise AssertionError("a plan makes no module")


def pool() -> ModelPool:
    return ModelPool({name: PooledModel(name, source=Headers(path=name)) for name in "abcde"})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (SimpleEnsemble(in_memory="all"), 5 * 400),
        (SimpleEnsemble(in_memory="one"), 400),
        (SimpleEnsemble(), 5 * 400),
        (GreedySoup(in_memory="all"), 5 * 400),
        (GreedySoup(in_memory="one"), 3 * 400),
    ],
)
def test_members_count_once_each_or_one_at_a_time(method, expected):
    assert make_plan(method, pool()).peak_bytes == expected
