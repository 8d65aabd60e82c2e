"""Model soups, against the mean written out in float64 and the recipe of the paper."""

from __future__ import annotations

import copy

import pytest
import torch
from fb_ensemble.soups.greedy_soup import GreedySoup
from fb_ensemble.soups.uniform_soup import UniformSoup
from pydantic import ValidationError
from torch import nn

from fusionbench_core import (
    AdaptationTask,
    ConfigError,
    FusionJob,
    ModelPool,
    PooledModel,
    TensorMethod,
    fuse,
)
from fusionbench_core.testing import case


def mean(models, names) -> dict[str, torch.Tensor]:
    states = [models[name].state_dict() for name in names]
    return {key: sum(state[key].double() for state in states) / len(states) for key in states[0]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ingredients", [None, ("gamma", "alpha"), ("beta",)])
def test_a_uniform_soup_is_the_mean_of_its_ingredients(dtype, ingredients):
    models = case("mlp", dtype=dtype).models
    found = fuse(UniformSoup(ingredients=ingredients), {k: v.state_dict() for k, v in models.items()})
    for key, expected in mean(models, ingredients or models).items():
        torch.testing.assert_close(
            found[key], expected.to(dtype), rtol=1e-6 if dtype == torch.float32 else 0.01, atol=1e-6
        )


def test_scalars_and_empty_tensors_are_averaged_and_integers_kept():
    models = case("tied_lm").models
    found = fuse("uniform_soup", {k: v.state_dict() for k, v in models.items()})
    assert found["scale"].shape == ()
    assert found["prompt"].shape == (0, 8)
    torch.testing.assert_close(found["scale"].double(), mean(models, models)["scale"])
    assert torch.equal(found["positions"], models["alpha"].get_buffer("positions"))


@pytest.mark.parametrize("wrong", [(), ("alpha", "alpha"), "alpha", 3])
def test_ingredients_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        UniformSoup(ingredients=wrong)


def test_an_ingredient_that_is_no_model_is_refused():
    with pytest.raises(ConfigError, match="'zeta'"):
        UniformSoup(ingredients=("alpha", "zeta")).check(["alpha", "beta"])


@torch.no_grad()
def accuracy(zoo, state) -> float:
    """Mean over all tasks of the fraction of validation samples that are right."""
    model = case("mlp", count=1).base
    model.load_state_dict({key: value.float() for key, value in state.items()})
    rates = []
    for task in zoo.tasks.values():
        (batch,) = task.batches("validation", labelled=True)
        right = task.attach(model)(**batch.inputs).argmax(-1) == batch.labels
        rates.append(right.double().mean().item())
    return sum(rates) / len(rates)


@pytest.mark.parametrize(("seed", "size"), [(1, 2), (6, 1), (15, 3)])
def test_the_greedy_soup_follows_the_recipe(seed, size):
    zoo = case("mlp", count=5, seed=seed, samples=48)
    alone = {name: accuracy(zoo, model.state_dict()) for name, model in zoo.models.items()}
    assert len(set(alone.values())) == 5, "the order of equals is decided elsewhere"
    first, *others = sorted(alone, key=lambda name: -alone[name])
    chosen, best = [first], alone[first]
    for name in others:
        found = accuracy(zoo, mean(zoo.models, [*chosen, name]))
        if found >= best:
            chosen, best = [*chosen, name], found
    fused = fuse(GreedySoup(), dict(zoo.models), base=zoo.base, tasks=zoo.tasks)
    for key, expected in mean(zoo.models, chosen).items():
        torch.testing.assert_close(fused.state_dict()[key].double(), expected, rtol=1e-5, atol=1e-6)
    assert best >= max(alone.values())
    assert len(chosen) == size


def test_the_report_says_what_a_greedy_soup_is_made_of(zoo):
    pool = ModelPool({name: PooledModel(name, content=model) for name, model in zoo.models.items()})
    tasks = {name: AdaptationTask(task, labels=True) for name, task in zoo.tasks.items()}

    def soup(inner: TensorMethod) -> dict[str, torch.Tensor]:
        assert isinstance(inner, UniformSoup)
        return mean(zoo.models, inner.ingredients or zoo.models)

    details = (
        GreedySoup(validation_samples=20).fuse(FusionJob(pool, tasks=tasks, run_tensor_method=soup)).details
    )
    alone = details["validation_accuracy"]
    assert set(alone) == set(zoo.models)
    assert details["ingredients"][0] == max(alone, key=lambda name: alone[name])
    assert details["validation_accuracy_of_the_soup"] >= max(alone.values())
    assert details["validation_samples"] == dict.fromkeys(sorted(zoo.tasks), 20)
    # Once for all models, and once for each further soup.
    assert all(sum(task.used.values()) == 20 * 3 for task in tasks.values())
    assert all("validation" in key for task in tasks.values() for key in task.used)


def test_of_equally_accurate_models_the_one_of_smaller_loss_comes_first(zoo):
    """A model whose outputs are larger predicts the same classes, with another loss."""

    def louder(model: nn.Module, factor: float) -> nn.Module:
        twin = copy.deepcopy(model)
        for name in ("norm.weight", "norm.bias"):
            twin.get_parameter(name).mul_(factor)
        return twin

    model, tasks = zoo.models["alpha"], {"alpha": zoo.tasks["alpha"]}
    models = {"a": louder(model, 20.0), "b": model, "c": louder(model, 40.0)}
    pool = ModelPool({name: PooledModel(name, content=each) for name, each in models.items()})
    guarded = {name: AdaptationTask(task, labels=True) for name, task in tasks.items()}
    job = FusionJob(pool, tasks=guarded, run_tensor_method=lambda inner: mean(models, inner.ingredients))
    details = GreedySoup().fuse(job).details
    assert len(set(details["validation_accuracy"].values())) == 1
    assert details["ingredients"] == ["b", "a", "c"]
