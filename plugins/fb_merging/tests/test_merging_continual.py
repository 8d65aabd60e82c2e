from __future__ import annotations

import pytest
import torch
from fb_merging.operations.ties import ties

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def wide(state):
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_continual_task_arithmetic_adds_up(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    expected = wide(base)
    for name, tensor in base.items():
        if tensor.is_floating_point():
            expected[name] = expected[name] + 0.3 * sum(
                m[name].double() - tensor.double() for m in models.values()
            )
    assert_near(fuse("continual_task_arithmetic", models, base), expected, [base, *models.values()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_continual_average_is_the_mean(zoo, assert_near, dtype):
    models, base = zoo(dtype, count=5)
    expected = dict(base)
    for name, tensor in base.items():
        if tensor.is_floating_point():
            expected[name] = torch.stack([model[name].double() for model in models.values()]).mean(0)
    assert_near(fuse("continual_average", models), expected, list(models.values()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_continual_ties_merges_pair_by_pair(zoo, assert_near, dtype, density):
    models, base = zoo(dtype)
    expected = wide(base)
    work = torch.promote_types(dtype, torch.float32)
    for name, tensor in base.items():
        if tensor.is_floating_point():
            first, *others = [(m[name].to(work) - tensor.to(work)).double() for m in models.values()]
            merged = 0.5 * first
            for delta in others:
                merged = merged + 0.5 * ties([merged, delta], density, "sum")
            expected[name] = tensor.double() + merged
    merged = fuse("continual_ties_merging", models, base, density=density)
    assert_near(merged, expected, [base, *models.values()])


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("continual_task_arithmetic", {"first_is_merged": True}),
        ("continual_ties_merging", {"first_is_merged": True}),
        ("continual_average", {"merged_models": 2}),
    ],
)
def test_models_are_added_to_an_earlier_result(zoo, assert_near, method, parameters):
    models, base = zoo(torch.float64, count=4)
    first, second, *others = models.values()
    earlier = fuse(method, {"a": first, "b": second}, base)
    later = {f"later{index}": model for index, model in enumerate(others)}
    continued = fuse(method, {"earlier": earlier, **later}, base, **parameters)
    assert_near(continued, fuse(method, models, base), [base, *models.values()])


def test_an_entry_of_continual_ties_by_hand():
    base = {"w": torch.zeros(2)}
    models = [{"w": torch.tensor([4.0, 1.0])}, {"w": torch.tensor([3.0, -5.0])}]
    # m1 = (2, 0.5); trimmed to one entry: (2, 0) and (0, -5); m2 = m1 + 0.5 (2, -5).
    merged = fuse("continual_ties_merging", models, base, density=0.5)
    assert merged["w"].tolist() == [3.0, -2.0]
