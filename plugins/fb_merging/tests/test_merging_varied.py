from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.varied.settings import along
from fb_merging.varied.varied import Varied

from fusionbench_core import ConfigError, TensorGroup, fuse

NAMES = [
    "embed_tokens.weight",
    *(f"layers.{layer}.{part}.weight" for layer in range(5) for part in ("attn", "mlp")),
    "norm.weight",
    "lm_head.weight",
]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 6, generator=generator) for name in NAMES}


BASE, A, B = draw(0), draw(1), draw(2)
MODELS = {"a": A, "b": B}


def layer_of(name):
    return int(name.split(".")[1]) if name.startswith("layers.") else None


def update(name, a=1.0, b=1.0):
    """The weighted sum of the task vectors in one tensor, in float64."""
    base = BASE[name].double().numpy()
    return a * (A[name].double().numpy() - base) + b * (B[name].double().numpy() - base)


def assert_updates(found, expected):
    for name in NAMES:
        wanted = BASE[name].double().numpy() + expected(name)
        assert np.abs(found[name].double().numpy() - wanted).max() < 1e-5, name


def varied(method, parameters, **more):
    return fuse("varied", MODELS, BASE, method=method, parameters=parameters, **more)


@pytest.mark.parametrize(
    ("anchors", "layer", "layers", "wanted"),
    [
        ([0.0, 1.0], 0, 5, 0.0),
        ([0.0, 1.0], 4, 5, 1.0),
        ([0.0, 1.0], 1, 5, 0.25),
        ([0.0, 0.5, 0.3, 0.7, 1.0], 1, 9, 0.25),
        ([0.0, 0.5, 0.3, 0.7, 1.0], 3, 9, 0.4),
        ([0.2], 3, 9, 0.2),
        ([0.2, 0.8], 0, 1, 0.8),
        ([0.2, 0.8], None, 0, 0.2),
        (["mean", "sum"], 3, 5, "mean"),
        (["mean", "sum"], 4, 5, "sum"),
        ([True, False], 2, 5, True),
    ],
)
def test_a_gradient_is_linear_between_evenly_spaced_numbers_and_a_step_between_others(
    anchors, layer, layers, wanted
):
    found = along(anchors, layer, layers)
    assert found == (pytest.approx(wanted) if isinstance(wanted, float) else wanted)


def test_rules_choose_by_name_and_place_and_the_first_that_applies_counts():
    found = varied(
        "task_arithmetic",
        {
            "scaling_factor": [
                {"tensors": "*.mlp.*", "gradient": [0, 1]},
                {"layers": "before", "value": 3},
                {"layers": "after", "value": -1},
                {"layers": [1, 3], "value": 0.5},
                {"value": 0.25},
            ]
        },
    )

    def factor(name):
        layer = layer_of(name)
        if "mlp" in name:
            return layer / 4
        if layer is None:
            return 3 if "embed" in name else -1
        return 0.5 if layer in (1, 2) else 0.25

    assert_updates(found, lambda name: factor(name) * update(name))


def test_a_gradient_spans_the_layers_of_its_rule():
    found = varied(
        {"name": "task_arithmetic", "scaling_factor": 2},
        {"scaling_factor": {"layers": [1, 4], "gradient": [0, 1]}},
    )
    factors = {1: 0.0, 2: 0.5, 3: 1.0}
    assert_updates(found, lambda name: factors.get(layer_of(name), 2) * update(name))


def test_each_model_has_its_own_setting_and_others_keep_that_of_the_method():
    found = varied(
        {"name": "task_vector_merging", "weights": 0.5, "scaling_factor": 1},
        {"weights": {"b": [{"tensors": "*mlp*", "gradient": [1, 3]}]}},
    )

    def expected(name):
        b = 1 + 2 * layer_of(name) / 4 if "mlp" in name else 0.5
        return update(name, 0.5, b)

    assert_updates(found, expected)


def test_models_can_be_merged_in_some_layers_only():
    found = varied(
        {"name": "task_arithmetic", "scaling_factor": 1},
        {},
        among=[{"layers": [0, 2], "value": ["a"]}, {"layers": "after", "value": ["b"]}],
    )

    def expected(name):
        if layer_of(name) in (0, 1):
            return update(name, 1, 0)
        return update(name, 0, 1) if name.startswith(("norm", "lm_head")) else update(name)

    assert_updates(found, expected)


def test_a_survey_sees_of_each_set_of_parameters_the_tensors_that_it_merges():
    """TIES with one threshold a model: here one over all of `mlp`, and another over the rest."""
    densities = {True: 0.25, False: 0.5}
    found = varied(
        {"name": "ties_merging", "merge_func": "sum"},
        {"density": [{"tensors": "*mlp*", "value": 0.25}, {"value": 0.5}]},
    )
    expected = {}
    for is_mlp, density in densities.items():
        names = [name for name in NAMES if ("mlp" in name) == is_mlp]
        trimmed = []
        for model in (A, B):
            flat = np.concatenate([(model[name] - BASE[name]).double().numpy().ravel() for name in names])
            kept = round(density * flat.size)
            bound = np.sort(np.abs(flat))[-kept]
            trimmed.append(np.where(np.abs(flat) >= bound, flat, 0))
        sign = np.sign(trimmed[0] + trimmed[1])
        merged = sum(np.where(np.sign(t) == sign, t, 0) for t in trimmed)
        for index, name in enumerate(names):
            expected[name] = merged[index * 24 : (index + 1) * 24].reshape(4, 6)
    assert_updates(found, expected.__getitem__)


def test_the_number_of_threads_does_not_change_the_result():
    parameters = {"density": {"a": {"gradient": [0.1, 0.9]}}}
    one, four = (varied("ties_merging", parameters, engine={"threads": threads}) for threads in (1, 4))
    assert all(torch.equal(one[name], four[name]) for name in NAMES)


def test_it_needs_what_the_method_needs_with_any_of_its_values():
    made = Varied.model_validate(
        {"method": "ties_merging", "parameters": {"trim": {"gradient": ["model", "tensor"]}}}
    )
    assert made.capabilities.base == "required"
    assert made.capabilities.locality == "tensor"
    assert made.capabilities.surveys == 2
    assert Varied.model_validate({"method": "dare_linear"}).capabilities.random


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"densty": 1}, "did you mean 'density'"),
        ({"density": {"gradient": [0.1, 2]}}, "less than or equal to 1"),
        ({"density": [{"valu": 1, "tensors": "*"}]}, "is no rule"),
        ({"density": {"value": 1, "gradient": [1]}}, "either a `value` or a `gradient`"),
        ({"density": {"value": 1, "tensor": "*"}}, "a rule has no tensor"),
        ({"density": {"value": 1, "layers": [3, 1]}}, r"must be \[start, stop\]"),
        ({"density": {"gradient": []}}, "must be a list of values"),
        ({"density": {"c": 0.5}}, "no model of the pool"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_read(parameters, said):
    with pytest.raises(ConfigError, match=said):
        varied("ties_merging", parameters)


@pytest.mark.parametrize("value", [["c"], [], "a"])
def test_models_that_are_merged_somewhere_must_be_in_the_pool(value):
    with pytest.raises(ConfigError):
        varied("ties_merging", {}, among=[{"layers": [0, 1], "value": value}])


def test_too_few_models_for_the_method_are_refused():
    with pytest.raises(ConfigError, match="cannot merge 1 models"):
        varied("slerp", {}, among=[{"layers": [0, 1], "value": ["a"]}])


def test_values_that_only_fail_together_are_refused_where_they_meet():
    together = {"density": {"value": 0.2, "tensors": "*mlp*"}, "epsilon": {"value": 0.3, "tensors": "*mlp*"}}
    with pytest.raises(ConfigError, match="do not go together"):
        varied({"name": "della", "density": 0.5, "epsilon": 0.1}, together)


def test_weights_that_are_0_for_one_model_at_a_time_are_allowed():
    group = TensorGroup(
        name="layers.0.w", shape=(2,), start=0, names=["a", "b"], seed=0, base=None, layer=0, layers=2,
        models=[torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])],
    )  # fmt: skip
    weights = {"a": {"gradient": [1, 0]}, "b": {"gradient": [0, 1]}}
    made = Varied.model_validate(
        {
            "method": {"name": "weighted_average", "weights": {"a": 1, "b": 1}},
            "parameters": {"weights": weights},
        }
    )
    made.check(["a", "b"])
    assert made.merge(group).tolist() == [1.0, 2.0]
