"""What the conformance kit does not ask of every method: precision, and that a seed matters."""

from __future__ import annotations

import pytest
import torch
from fb_merging.plugin import ENTRIES

from fusionbench_core import MethodRecord, TensorMethod, fuse
from fusionbench_core.registry import default_registry

METHODS = [
    record
    for record in ENTRIES
    if record.capabilities.output == "weights"
    and not (record.capabilities.tasks or record.capabilities.statistics)
]


def run(record: MethodRecord, models, base, **options):
    method = default_registry().load("method", f"merging/{record.name}")()
    assert isinstance(method, TensorMethod)
    return fuse(method, models, base, **options)


def count_for(record: MethodRecord, wanted: int) -> int:
    return min(wanted, record.capabilities.max_models or wanted)


@pytest.mark.parametrize("record", METHODS, ids=lambda record: record.name)
def test_fp64_accumulation_agrees_with_fp32(zoo, assert_near, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    wide = run(record, models, base, engine={"accumulate": "float64"})
    assert_near(run(record, models, base), wide, [base, *models.values()])


@pytest.mark.parametrize(
    "record", [record for record in METHODS if record.capabilities.random], ids=lambda record: record.name
)
def test_the_seed_decides_what_a_random_method_draws(zoo, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    one, other = run(record, models, base, seed=1), run(record, models, base, seed=2)
    assert not torch.equal(one["matrix"], other["matrix"])
