from __future__ import annotations

import pytest
import torch
from fb_merging.averages.simple_average import SimpleAverage
from fb_merging.averages.weighted_average import WeightedAverage
from fb_merging.task_vectors.task_arithmetic import TaskArithmetic
from pydantic import ValidationError

from fusionbench_core import ConfigError, Law, fuse

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])


def linear(models, weights, base=None, base_weight=0.0):
    """base_weight * base + Σ w θ in float64; other dtypes from the first model."""
    first = next(iter(models.values()))
    result = {}
    for name, tensor in first.items():
        if not tensor.is_floating_point():
            result[name] = tensor
            continue
        total = sum(w * state[name].double() for w, state in zip(weights, models.values()))
        result[name] = total + (base_weight * base[name].double() if base is not None else 0)
    return result


@DTYPES
def test_simple_average_is_the_mean(zoo, assert_near, dtype):
    models, _ = zoo(dtype)
    merged = fuse("simple_average", models)
    assert {name: t.dtype for name, t in merged.items()} == {
        name: t.dtype for name, t in models["model0"].items()
    }
    assert_near(merged, linear(models, [1 / 3] * 3), list(models.values()))


def test_half_precision_copies_give_the_same_bits(zoo):
    for count in (2, 3, 7, 11):
        models, _ = zoo(torch.bfloat16, count=1)
        merged = fuse(SimpleAverage(), dict.fromkeys("abcdefghijk"[:count], models["model0"]))
        for name, tensor in models["model0"].items():
            assert torch.equal(merged[name], tensor)


def test_half_precision_models_are_added_in_fp32():
    models = [{"w": torch.full((3,), 6e4, dtype=torch.float16)} for _ in range(4)]
    assert torch.equal(fuse("simple_average", models)["w"], models[0]["w"])
    small = [{"w": torch.tensor([1.0 + index / 128], dtype=torch.bfloat16)} for index in range(16)]
    exact = torch.tensor([sum(1.0 + index / 128 for index in range(16)) / 16]).to(torch.bfloat16)
    assert torch.equal(fuse("simple_average", small)["w"], exact)


@DTYPES
def test_weights_of_a_list_go_by_config_order(zoo, assert_near, dtype):
    models, _ = zoo(dtype)
    models = dict(reversed(models.items()))
    merged = fuse("weighted_average", models, weights=[1, 2, 5])
    assert_near(merged, linear(models, [1 / 8, 2 / 8, 5 / 8]), list(models.values()))


def test_weights_of_a_mapping_go_by_name(zoo, assert_near):
    models, _ = zoo(torch.float32)
    weights = {"model2": 0.5, "model0": -0.25, "model1": 1.0}
    merged = fuse("weighted_average", models, weights=weights, normalize=False)
    assert_near(merged, linear(models, [-0.25, 1.0, 0.5]), list(models.values()))


def test_without_weights_all_models_weigh_the_same(zoo, assert_near):
    models, _ = zoo(torch.float32)
    for normalize in (True, False):
        merged = fuse("weighted_average", models, normalize=normalize)
        assert_near(merged, linear(models, [1 / 3] * 3), list(models.values()))


def test_a_weight_of_zero_removes_a_model(zoo):
    models, _ = zoo(torch.float32)
    merged = fuse("weighted_average", models, weights=[3, 0, 1])
    without = fuse("weighted_average", {k: models[k] for k in ("model0", "model2")}, weights=[3, 1])
    for name, tensor in without.items():
        assert torch.equal(merged[name], tensor)


def test_normalised_weights_may_be_scaled_by_a_constant(zoo):
    models, _ = zoo(torch.float32)
    one = fuse("weighted_average", models, weights=[1, 2, 3])
    four = fuse("weighted_average", models, weights=[4, 8, 12])
    assert all(torch.equal(one[name], four[name]) for name in one)


@pytest.mark.parametrize("weights", [[1, 2], [1, 2, 3, 4], {"model0": 1, "model1": 1}, {"other": 1.0}])
def test_weights_that_do_not_fit_the_models_are_refused_before_reading(zoo, weights):
    models, _ = zoo(torch.float32)
    with pytest.raises(ConfigError, match="weights"):
        fuse("weighted_average", models, weights=weights)


@pytest.mark.parametrize(
    "weights", [[1, -1, 0], [0.0], {"a": 0.1, "b": -0.1}, [float("nan")], [float("inf")]]
)
def test_weights_that_cannot_be_normalised_are_refused(weights):
    with pytest.raises(ValidationError):
        WeightedAverage(weights=weights)


def test_weights_that_add_up_to_nothing_are_fine_unless_normalised():
    assert WeightedAverage(weights=[1, -1], normalize=False).weights == (1, -1)


def test_weighted_average_declares_only_the_laws_its_weights_keep():
    assert WeightedAverage().capabilities.laws == frozenset(Law)
    listed = WeightedAverage(weights=[1, 2]).capabilities
    assert listed.ordered
    assert Law.PERMUTATION not in listed.laws
    named = WeightedAverage(weights={"a": 1, "b": 1}, normalize=False).capabilities
    assert not named.ordered
    assert named.laws == {Law.PERMUTATION, Law.SCALE}


def test_weighted_averages_are_equal_and_hash_by_value():
    one, other = WeightedAverage(weights={"a": 1, "b": 2}), WeightedAverage(weights={"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)


@DTYPES
@pytest.mark.parametrize("factor", [0.3, 1.0, -0.5])
def test_task_arithmetic_adds_scaled_task_vectors(zoo, assert_near, dtype, factor):
    models, base = zoo(dtype)
    merged = fuse("task_arithmetic", models, base, scaling_factor=factor)
    expected = linear(models, [factor] * 3, base, 1 - 3 * factor)
    assert_near(merged, expected, [base, *models.values()])


def test_task_arithmetic_of_the_base_is_the_base_bit_for_bit(zoo):
    _, base = zoo(torch.float32)
    merged = fuse(TaskArithmetic(), {"a": base, "b": base}, base)
    assert all(torch.equal(merged[name], base[name]) for name in base)
