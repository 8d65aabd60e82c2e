from __future__ import annotations

import math

import pytest
import torch
from fb_merging.averages.slerp import Slerp
from fb_merging.operations.vectors import cosine_similarity
from pydantic import ValidationError

from fusionbench_core import MissingCapability, fuse


def naive_slerp(a, b, t, threshold=0.9995):
    a, b = a.double(), b.double()
    norms = float(a.norm() * b.norm())
    cosine = float((a * b).sum()) / norms if norms else 1.0
    if abs(cosine) > threshold:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_follows_the_formula(zoo, assert_near, dtype, t):
    models, _ = zoo(dtype, count=2)
    other, _ = zoo(dtype, count=1, seed=5)
    models["model1"] = {**other["model0"], "frozen": models["model0"]["frozen"]}
    merged = fuse("slerp", models, t=t)
    first, second = models.values()
    expected = {
        name: naive_slerp(tensor, second[name], t) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }
    assert_near(merged, expected, list(models.values()))


def test_slerp_keeps_the_norm_of_unit_vectors():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    merged = fuse("slerp", [{"w": a}, {"w": b}], t=1 / 3)["w"]
    assert merged.tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_the_ends_are_the_models_in_config_order():
    models = {"z": {"w": torch.tensor([1.0, 0.0])}, "a": {"w": torch.tensor([0.0, 2.0])}}
    assert fuse("slerp", models, t=0)["w"].tolist() == [1.0, 0.0]
    assert fuse("slerp", models, t=1)["w"].tolist() == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.0, 0.0], [1.0, 2.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, 2.0], [-1.0, -2.0]),
        ([1.0, 2.0], [2.0, 4.0]),
    ],
)
def test_zero_parallel_and_opposite_tensors_are_interpolated_linearly(a, b):
    for threshold in (0.9995, 0.999999):
        method = Slerp(t=0.25, dot_threshold=threshold)
        merged = fuse(method, [{"w": torch.tensor(a)}, {"w": torch.tensor(b)}])["w"]
        assert merged.tolist() == pytest.approx([0.75 * x + 0.25 * y for x, y in zip(a, b)])


def test_the_angle_does_not_hang_on_the_number_of_threads():
    a, b = torch.randn(2, 1 << 18, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        found = set()
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.add(cosine_similarity(a, b))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    exact = float((a.double() @ b.double()) / (a.double().norm() * b.double().norm()))
    assert found.pop() == pytest.approx(exact, rel=1e-12)


def test_slerp_takes_exactly_two_models(zoo):
    models, base = zoo(torch.float32, count=3)
    with pytest.raises(MissingCapability):
        fuse("slerp", models)
    with pytest.raises(MissingCapability):
        fuse("slerp", {"only": base}, base)


def test_a_base_is_not_looked_at(zoo):
    models, base = zoo(torch.float32, count=2)
    with_base, without = fuse("slerp", models, base), fuse("slerp", models)
    assert all(torch.equal(with_base[name], without[name]) for name in without)


@pytest.mark.parametrize(
    "parameters", [{"t": -0.1}, {"t": 1.1}, {"dot_threshold": 1.0}, {"dot_threshold": -1}]
)
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises(ValidationError):
        Slerp(**parameters)
