"""Ensembles against their formulas, written out in float64."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from fb_ensemble.builder import build_predictor
from fb_ensemble.confidence_routing import ConfidenceRouting
from fb_ensemble.max_model_predictor import MaxModelPredictor
from fb_ensemble.predictors import MaxPredictor, MeanPredictor
from fb_ensemble.simple_ensemble import SimpleEnsemble
from fb_ensemble.weighted_ensemble import WeightedEnsemble
from pydantic import ValidationError
from torch import Tensor, nn

from fusionbench_core import (
    BuildContext,
    ConfigError,
    Fused,
    FusionJob,
    Law,
    ModelMethod,
    ModelPool,
    PooledModel,
    StateDictCheckpoint,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def net(seed: int) -> nn.Module:
    module = nn.Sequential(
        nn.utils.skip_init(nn.Linear, 4, 8), nn.Tanh(), nn.utils.skip_init(nn.Linear, 8, 3)
    )
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(randn(*parameter.shape, seed=100 * seed + number))
    return module.eval()


NETS = {"a": net(1), "b": net(2), "c": net(3)}
X = randn(6, 4, seed=7)


def job(nets: dict[str, nn.Module] = NETS) -> FusionJob:
    return FusionJob(
        pool=ModelPool({name: PooledModel(name, content=module) for name, module in nets.items()})
    )


def outputs(nets: dict[str, nn.Module] = NETS) -> Tensor:
    with torch.no_grad():
        return torch.stack([copy.deepcopy(module).double()(X.double()) for module in nets.values()])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_the_simple_ensemble_is_the_mean_of_logits():
    close(SimpleEnsemble().fuse(job()).module(X), outputs().mean(0))


def test_softmax_of_averaged_probabilities_is_the_mean_probability():
    found = SimpleEnsemble(space="probabilities").fuse(job()).module(X)
    close(found.softmax(-1), outputs().softmax(-1).mean(0))
    close(found, outputs().softmax(-1).mean(0).log())


def test_the_largest_logit_wins():
    close(MaxModelPredictor().fuse(job()).module(X), outputs().max(0).values)


@pytest.mark.parametrize("weights", [(1.0, 2.0, 5.0), {"c": 5, "a": 1, "b": 2}])
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_go_by_order_or_by_name(weights, normalize):
    found = WeightedEnsemble(weights=weights, normalize=normalize).fuse(job()).module(X)
    y = outputs()
    close(found, (1 * y[0] + 2 * y[1] + 5 * y[2]) / (8 if normalize else 1))


@pytest.mark.parametrize("normalize", [True, False])
def test_without_weights_all_models_count_the_same(normalize):
    close(WeightedEnsemble(normalize=normalize).fuse(job()).module(X), outputs().mean(0))


def test_weighted_probabilities():
    method = WeightedEnsemble(weights=(1, 2, 5), space="probabilities")
    y = outputs().softmax(-1)
    close(method.fuse(job()).module(X).softmax(-1), (1 * y[0] + 2 * y[1] + 5 * y[2]) / 8)


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_a_model_of_weight_0_does_not_count(space):
    found = WeightedEnsemble(weights=(1, 0, 3), space=space).fuse(job()).module(X)
    pair = {name: NETS[name] for name in "ac"}
    close(found, WeightedEnsemble(weights=(1, 3), space=space).fuse(job(pair)).module(X).double())


def test_the_geometric_mean_is_the_normalised_product_of_powers():
    p = outputs().softmax(-1)
    product = p.pow(1 / 3).prod(0)
    expected = product / product.sum(-1, keepdim=True)
    found = SimpleEnsemble(space="log_probabilities").fuse(job()).module(X)
    close(found.exp(), expected)
    close(SimpleEnsemble().fuse(job()).module(X).softmax(-1), expected)


def test_a_weighted_geometric_mean_has_the_weights_as_exponents():
    p = outputs().softmax(-1)
    product = p[0].pow(1 / 8) * p[1].pow(2 / 8) * p[2].pow(5 / 8)
    method = WeightedEnsemble(weights=(1, 2, 5), space="log_probabilities")
    close(method.fuse(job()).module(X).exp(), product / product.sum(-1, keepdim=True))


def test_the_largest_probability_wins():
    found = MaxModelPredictor(space="probabilities").fuse(job()).module(X)
    close(found.exp(), outputs().softmax(-1).max(0).values)


VOTES = torch.tensor(
    [
        [[9.0, 1.0, 0.0], [1.0, 0.0, 0.5]],
        [[0.0, 0.1, 0.0], [0.0, 9.0, 0.0]],
        [[0.0, 0.2, 0.1], [0.0, 0.0, 0.3]],
    ]
)
"""Three models, two inputs: on the first, two vote for class 1; on the second, each for another one."""


def test_the_majority_wins_against_a_louder_minority():
    found = MeanPredictor(NETS, (1 / 3,) * 3, "votes").combine(VOTES)
    assert found[0].argmax() == 1
    mean = VOTES.double().softmax(-1).mean(0)
    votes = torch.tensor([[1, 2, 0], [1, 1, 1]]) / 3
    close(found.exp(), (votes + 1e-3 * mean) / (1 + 1e-3))
    close(found.exp().sum(-1), torch.ones(2).double())


def test_equally_many_votes_are_decided_by_the_mean_probability():
    found = MeanPredictor(NETS, (1 / 3,) * 3, "votes").combine(VOTES)
    assert found[1].argmax() == VOTES[:, 1].double().softmax(-1).mean(0).argmax() == 1


def test_votes_have_weights():
    found = MeanPredictor(NETS, (0.6, 0.2, 0.2), "votes").combine(VOTES)
    assert found.argmax(-1).tolist() == [0, 0]


def test_averaged_probabilities_survive_extreme_logits():
    logits = torch.tensor([[[1e4, 0.0, -1e4]], [[-1e4, 0.0, 1e4]]])
    combined = MeanPredictor({"a": NETS["a"], "b": NETS["b"]}, (0.5, 0.5), "probabilities").combine(logits)
    assert torch.isfinite(combined).all()
    close(combined.softmax(-1), torch.tensor([[0.5, 0.0, 0.5]]).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("space", ["logits", "probabilities", "log_probabilities", "votes"])
def test_the_dtype_is_kept_and_half_precision_does_not_overflow(dtype, space):
    logits = torch.full((3, 2, 4), 6e4).to(dtype)
    combined = MeanPredictor(NETS, (1, 1, 1), space).combine(logits / 3)
    assert combined.dtype == dtype
    assert torch.isfinite(combined).all()


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 5, 4), (3, 0, 4)])
def test_any_shape_of_logits_is_combined(shape):
    logits = randn(*shape, seed=2)
    close(
        MeanPredictor(NETS, (0.2, 0.3, 0.5)).combine(logits),
        torch.einsum("t...,t->...", logits.double(), torch.tensor([0.2, 0.3, 0.5]).double()),
    )
    close(MaxPredictor(NETS).combine(logits), logits.double().amax(0))


METHODS: list[ModelMethod] = [
    SimpleEnsemble(),
    WeightedEnsemble(),
    WeightedEnsemble(weights={"a": 1, "b": 2, "c": 5}),
    MaxModelPredictor(),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_copies_of_one_model_give_that_model(method):
    assert {Law.IDENTICAL, Law.BASE_FIXED_POINT} <= method.capabilities.laws
    nets = dict.fromkeys("abc", NETS["a"])
    close(method.fuse(job(nets)).module(X), outputs({"a": NETS["a"]})[0])


@pytest.mark.parametrize("method", [SimpleEnsemble(), WeightedEnsemble(), MaxModelPredictor()], ids=repr)
def test_one_model_alone_gives_itself(method):
    assert Law.SINGLE in method.capabilities.laws
    close(method.fuse(job({"a": NETS["a"]})).module(X), outputs({"a": NETS["a"]})[0])


SPACED: list[ModelMethod] = [
    SimpleEnsemble(space="probabilities"),
    SimpleEnsemble(space="log_probabilities"),
    SimpleEnsemble(space="votes"),
    MaxModelPredictor(space="probabilities"),
    ConfidenceRouting(),
    ConfidenceRouting(confidence="entropy"),
    WeightedEnsemble(space="probabilities", weights={"a": 1, "b": 2, "c": 3}),
]


@pytest.mark.parametrize("method", [*METHODS, *SPACED], ids=repr)
def test_the_order_of_models_does_not_matter(method):
    assert Law.PERMUTATION in method.capabilities.laws
    assert not method.capabilities.ordered
    turned = dict(reversed(NETS.items()))
    close(method.fuse(job(turned)).module(X), method.fuse(job()).module(X).double())


def test_laws_follow_the_parameters():
    assert WeightedEnsemble(weights=(1, 2)).capabilities.ordered
    assert Law.PERMUTATION not in WeightedEnsemble(weights=(1, 2)).capabilities.laws
    assert Law.IDENTICAL in WeightedEnsemble(weights=(1, 2)).capabilities.laws
    assert WeightedEnsemble(weights={"a": 2}, normalize=False).capabilities.laws == {Law.PERMUTATION}
    assert WeightedEnsemble(weights=(2, 2), normalize=False).capabilities.laws == frozenset()
    assert SimpleEnsemble(space="probabilities").capabilities.laws == {Law.PERMUTATION}


def rebuilt(fused: Fused) -> nn.Module:
    def skeleton() -> nn.Module:
        raise AssertionError("an ensemble needs no skeleton")

    arguments = json.loads(json.dumps(fused.arguments))
    return build_predictor(
        BuildContext(
            arguments=arguments,
            skeleton=skeleton,
            member=lambda name: copy.deepcopy(NETS[name]),
            checkpoint=lambda name: StateDictCheckpoint(NETS[name].state_dict()),
        )
    )


@pytest.mark.parametrize("method", [*METHODS, *SPACED], ids=repr)
def test_the_builder_makes_the_same_predictor_again_from_its_members(method):
    fused = method.fuse(job())
    assert fused.tensors == {}
    again = rebuilt(fused)
    assert again.names == ("a", "b", "c")
    assert torch.equal(again(X), fused.module(X))
    assert not any(module.training for module in again.modules())
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_members_are_the_pools_models_and_inputs_are_left_alone():
    nets = {name: copy.deepcopy(module).train() for name, module in NETS.items()}
    state = torch.get_rng_state()
    fused = SimpleEnsemble().fuse(job(nets))
    fused.module(X)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, module), member in zip(nets.items(), fused.module.members.models):
        assert module.training
        assert not member.training
        assert all(parameter.requires_grad for parameter in module.parameters())
        for key, tensor in member.state_dict().items():
            assert torch.equal(tensor, NETS[name].state_dict()[key])
            assert tensor.data_ptr() != module.state_dict()[key].data_ptr()
    assert not any(parameter.requires_grad for parameter in fused.module.parameters())
    assert fused.details["parameters"] == 3 * (4 * 8 + 8 + 8 * 3 + 3)


class Nested(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Any:
        return OrderedDict(logits=self.scale * x, hidden=(x + self.scale, None), name="nested")


def test_nested_outputs_are_combined_where_they_are_tensors():
    found = MeanPredictor({"a": Nested(1.0), "b": Nested(3.0)}, (0.5, 0.5))(X)
    assert type(found) is OrderedDict
    close(found["logits"], 2 * X.double())
    close(found["hidden"][0], X.double() + 2)
    assert found["hidden"][1] is None
    assert found["name"] == "nested"


@pytest.mark.parametrize("weights", [(1.0, 2.0), (), {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3, "d": 4}])
def test_weights_that_do_not_fit_the_models_are_refused(weights):
    if not weights:
        with pytest.raises(ValidationError):
            WeightedEnsemble(weights=weights)
        return
    with pytest.raises(ConfigError, match="do not fit 3 models"):
        WeightedEnsemble(weights=weights).check(["a", "b", "c"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": (1.0, -1.0)},
        {"weights": (0.0, 0.0), "normalize": False},
        {"weights": (1.0, float("nan"))},
        {"weights": "heavy"},
        {"weights": (2.0, -1.0), "space": "probabilities"},
        {"weights": (2.0, -1.0), "space": "votes"},
        {"weights": "fitted", "space": "votes"},
        {"weights": "fitted", "normalize": False},
        {"weights": (1.0, 2.0), "validation_samples": 10},
        {"weights": "fitted", "validation_samples": 0},
        {"space": "logit"},
        {"in_memory": "two"},
        {"weight": (1.0,)},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        WeightedEnsemble(**wrong)


def test_methods_are_equal_and_hashed_by_value():
    one, other = WeightedEnsemble(weights={"a": 1, "b": 2}), WeightedEnsemble(weights={"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert WeightedEnsemble.model_validate(json.loads(one.model_dump_json())) == one
