from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.post.lines import Lines
from fb_merging.post.scaled import Scaled, factor_at
from fb_merging.post.singular_value_calibration import SingularValueCalibration
from fb_merging.post.subspace_boosting import SubspaceBoosting
from fb_merging.task_vectors.task_arithmetic import TaskArithmetic
from fb_merging.task_vectors.ties_merging import TiesMerging
from pydantic import ValidationError

from fusionbench_core import ConfigError, UnknownName, fuse

HALF = {"name": "task_arithmetic", "scaling_factor": 0.5}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def make(cls, **parameters):
    return cls.model_validate(parameters)


def layered(dtype=torch.float32, count=2, layers=3):
    """Models with an embedding, some layers and a head: name -> state dict, and the base."""
    generator = torch.Generator().manual_seed(5)
    names = ["embed.weight", *(f"encoder.layers.{layer}.w" for layer in range(layers)), "head.weight"]
    base = {name: torch.randn(6, 4, generator=generator) for name in names}
    models = {
        f"m{index}": {
            name: (tensor + 0.1 * torch.randn(6, 4, generator=generator)).to(dtype)
            for name, tensor in base.items()
        }
        for index in range(count)
    }
    return models, {name: tensor.to(dtype) for name, tensor in base.items()}


def deltas_of(models, base):
    """Tensor name -> float64 array `(models, 6, 4)`: differences in fp32, as the engine takes them."""
    return {
        name: np.stack([(m[name].float() - tensor.float()).double().numpy() for m in models.values()])
        for name, tensor in base.items()
    }


def assert_updates(found, base, updates, dtype):
    bound = 8 * torch.finfo(dtype).eps * 4
    for name, update in updates.items():
        wanted = base[name].double().numpy() + update
        assert np.abs(found[name].double().numpy() - wanted).max() <= bound, name


@DTYPES
def test_scaled_multiplies_by_depth_and_by_every_pattern_that_matches(dtype):
    models, base = layered(dtype)
    found = fuse(
        "scaled",
        models,
        base,
        method=HALF,
        scaling_factor=2.0,
        by_depth=[0.0, 1.0],
        by_name={"*w": 3.0, "*.2.*": 0.5},
    )
    factors = {
        "embed.weight": 2.0,
        "encoder.layers.0.w": 0.0,
        "encoder.layers.1.w": 2.0 * 0.5 * 3.0,
        "encoder.layers.2.w": 2.0 * 1.0 * 3.0 * 0.5,
        "head.weight": 2.0,
    }
    updates = {name: factors[name] * 0.5 * each.sum(0) for name, each in deltas_of(models, base).items()}
    assert_updates(found, base, updates, dtype)


def test_factors_between_anchors_lie_on_a_line():
    assert [factor_at((1.0, 3.0), layer, 5) for layer in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert [factor_at((1.0, 0.0, 4.0), layer, 5) for layer in range(5)] == [1.0, 0.5, 0.0, 2.0, 4.0]
    assert [factor_at((7.0,), layer, 3) for layer in range(3)] == [7.0] * 3
    assert factor_at((2.0, 5.0), 0, 1) == 2.0
    assert factor_at((2.0, 5.0), None, None) == factor_at((), 1, 3) == 1.0


@DTYPES
def test_lines_grows_linearly_with_depth_from_the_ratio_of_norms(dtype):
    models, base = layered(dtype)
    found = fuse("lines", models, base, method=HALF, beta=0.4)
    # The merged task vector is half of the sum, so the ratio of norms is 2, and alpha 2 / T = 1.
    factors = dict(zip(base, [1.0, 1.0, 1.2, 1.4, 1.0]))
    updates = {name: factors[name] * 0.5 * each.sum(0) for name, each in deltas_of(models, base).items()}
    assert_updates(found, base, updates, dtype)


def test_lines_finds_the_norms_after_the_survey_of_the_inner_method():
    models, base = layered()
    ties = TiesMerging(density=0.3)
    merged = fuse(ties, models, base)
    update = {name: (merged[name] - base[name]).double().numpy() for name in base}
    each = deltas_of(models, base)
    alpha = (
        sum(np.abs(d.sum(0)).sum() for d in each.values()) / sum(np.abs(d).sum() for d in update.values()) / 2
    )
    factors = dict(zip(base, [alpha, alpha, alpha + 0.25, alpha + 0.5, alpha]))
    assert_updates(
        fuse("lines", models, base, method=ties),
        base,
        {n: factors[n] * update[n] for n in base},
        torch.float32,
    )
    assert Lines(method=ties).capabilities.surveys == ties.capabilities.surveys + 1
    assert Lines(method=ties, alpha=1.0).capabilities.surveys == ties.capabilities.surveys


def test_lines_counts_the_layers_of_each_stack_apart():
    names = ["encoder.layers.0.w", "encoder.layers.1.w", *(f"decoder.layers.{i}.w" for i in range(3))]
    base = {name: torch.zeros(2) for name in names}
    models = {"only": {name: torch.ones(2) for name in names}}
    found = fuse("lines", models, base, alpha=0.0, beta=1.0)
    assert [float(found[name][0]) for name in names] == [0.0, 1.0, 0.0, 0.5, 1.0]


def test_lines_with_a_single_layer_or_nothing_merged_stays_finite():
    base = {"layers.0.w": torch.zeros(2), "embed": torch.ones(2)}
    models = {"only": {"layers.0.w": torch.ones(2), "embed": torch.ones(2)}}
    assert fuse("lines", models, base, alpha=0.5)["layers.0.w"].tolist() == [0.5, 0.5]
    assert fuse("lines", {"only": base}, base)["embed"].tolist() == [1.0, 1.0]


def boosted(matrix, beta):
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    k = int(np.argmax(np.cumsum(s) >= beta * s.sum()))
    return (u * np.maximum(s, s[k])) @ vh


@DTYPES
@pytest.mark.parametrize("beta", [0.0, 0.01, 0.5])
def test_subspace_boosting_raises_singular_values_to_that_at_the_threshold(dtype, beta):
    models, base = layered(dtype)
    found = fuse("subspace_boosting", models, base, method=HALF, beta=beta, exclude=["head*"])
    sums = {name: 0.5 * each.sum(0) for name, each in deltas_of(models, base).items()}
    updates = {name: sums[name] if name.startswith("head") else boosted(sums[name], beta) for name in base}
    assert_updates(found, base, updates, dtype)


def test_subspace_boosting_of_everything_changes_nothing_and_directions_of_rounding_stay_small():
    models, base = layered()
    same = fuse("subspace_boosting", models, base, beta=1.0)
    plain = fuse("task_arithmetic", models, base)
    assert all(torch.allclose(same[name], plain[name], rtol=0, atol=1e-6) for name in base)
    u, v = torch.linspace(-1, 1, 6), torch.linspace(1, 2, 4)
    rank_one = {name: tensor + 0.1 * torch.outer(u, v) for name, tensor in base.items()}
    found = fuse(
        "subspace_boosting", {"only": rank_one}, base, method={**HALF, "scaling_factor": 1.0}, beta=0.0
    )
    assert all(torch.allclose(found[name], rank_one[name], rtol=0, atol=2e-6) for name in base)


def calibrated(matrix, deltas, alpha):
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    gamma = []
    for r in range(len(s)):
        responses = [u[:, r] @ delta for delta in deltas]
        each = [max(alpha, (u[:, r] @ matrix) @ a / (a @ a)) for a in responses]
        gamma.append(len(deltas) / sum(each))
    return (u * (np.array(gamma) * s)) @ vh


@DTYPES
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_calibration_divides_singular_values_by_the_mean_coefficient_of_the_tasks(dtype, alpha):
    models, base = layered(dtype, count=3)
    found = fuse("singular_value_calibration", models, base, method=HALF, alpha=alpha, exclude=["embed*"])
    updates = {}
    for name, each in deltas_of(models, base).items():
        merged = 0.5 * each.sum(0)
        updates[name] = merged if name.startswith("embed") else calibrated(merged, each, alpha)
    assert_updates(found, base, updates, dtype)


def test_calibration_takes_back_what_copies_of_one_model_add_up_to():
    models, base = layered(count=1)
    copies = dict.fromkeys("abc", models["m0"])
    found = fuse("singular_value_calibration", copies, base, method={**HALF, "scaling_factor": 1.0})
    assert all(torch.allclose(found[name], models["m0"][name], rtol=0, atol=2e-6) for name in base)


def test_calibration_counts_a_task_without_an_update_with_the_least_coefficient():
    base = {"w": torch.zeros(2, 2)}
    models = {
        "a": {"w": torch.tensor([[4.0, 0.0], [0.0, 0.0]])},
        "b": {"w": torch.tensor([[0.0, 0.0], [0.0, 2.0]])},
    }
    found = fuse(
        "singular_value_calibration", models, base, method={**HALF, "scaling_factor": 1.0}, alpha=0.5
    )
    # Along each direction one task has coefficient 1, the other nothing: gamma = 2 / (1 + 0.5).
    assert torch.allclose(found["w"], torch.tensor([[16 / 3, 0.0], [0.0, 8 / 3]]))


def test_what_the_inner_method_needs_and_promises_is_derived():
    ties = make(SubspaceBoosting, method="ties_merging")
    assert ties.capabilities.locality == "tensor"
    assert ties.capabilities.surveys == 2
    assert make(Scaled, method={"name": "dare_linear", "density": 0.5}).capabilities.random
    assert make(Scaled, method={"name": "dare_linear", "density": [0.5, 0.4]}).capabilities.ordered
    gram = make(SingularValueCalibration, method="regmean")
    assert gram.capabilities.statistics == ("gram",)
    assert gram.statistics() == gram.method.statistics()
    with pytest.raises(ConfigError, match="2 weights for 1 models"):
        fuse(
            "scaled",
            {"a": {"w": torch.zeros(2)}},
            {"w": torch.zeros(2)},
            method={"name": "ties_merging", "weights": [1, 2]},
        )


def test_methods_stand_inside_methods_inside_methods():
    models, base = layered()
    found = fuse(
        "scaled",
        models,
        base,
        method={"name": "lines", "method": "task_arithmetic", "alpha": 1.0, "beta": 0.0},
        scaling_factor=0.5,
    )
    updates = {name: 0.15 * each.sum(0) for name, each in deltas_of(models, base).items()}
    assert_updates(found, base, updates, torch.float32)


def test_an_inner_method_is_written_down_by_its_name_and_its_parameters():
    method = Scaled(method=TaskArithmetic(scaling_factor=0.5))
    assert method.model_dump(mode="json")["method"] == {
        "name": "merging/task_arithmetic",
        "scaling_factor": 0.5,
    }
    assert Scaled.model_validate(method.model_dump()) == method
    assert make(Scaled, method=HALF) == method != Scaled()
    assert hash(make(Scaled, method=HALF)) == hash(method)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ({"name": "ties_merging", "density": 2}, r"method\.method\.density"),
        ({"name": "ties_merging", "treshold": 20}, r"method\.method\.treshold"),
        ({"density": 0.5}, r"`method\.method` section has no `name`"),
    ],
)
def test_a_wrong_parameter_of_an_inner_method_is_named(inner, message):
    with pytest.raises(ConfigError, match=message):
        fuse("scaled", {"a": {}}, {}, method=inner)


def test_an_inner_method_must_exist_and_merge_tensor_by_tensor():
    with pytest.raises(UnknownName, match="ties_mergin"):
        fuse("scaled", {"a": {}}, {}, method="ties_mergin")
    with pytest.raises(ValidationError, match="ties_mergin"):
        make(Scaled, method="ties_mergin")
    with pytest.raises(ValidationError, match="does not merge tensor by tensor"):
        make(Scaled, method="adamerging")
    with pytest.raises(ValidationError, match="name of a method"):
        make(Scaled, method=3)
