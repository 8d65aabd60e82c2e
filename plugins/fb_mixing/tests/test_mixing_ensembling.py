"""Weight ensembling against its formulas, written out in float64."""

from __future__ import annotations

import json

import pytest
import torch
from fb_mixing.ensembling.efficient import EfficientWeightEnsemblingMoE, largest
from fb_mixing.ensembling.layers import EnsembledLinear, WeightEnsembling, ensembled, set_preference
from fb_mixing.ensembling.pwe_moe import ParetoWeightEnsemblingMoE
from fb_mixing.ensembling.rank_one_moe import RankOneMoE
from fb_mixing.ensembling.router import Router
from fb_mixing.ensembling.weight_ensembling_moe import WeightEnsemblingMoE
from torch import Tensor, nn

from fusionbench_core import (
    ConfigError,
    MissingCapability,
    UnsupportedArchitecture,
    fuse,
    load,
)
from fusionbench_core.testing.zoo import ZooTask, case

FAMILIES = ["llama", "bert", "gpt2", "t5", "clip_vision_model"]
STILL = {"steps": 0, "router_layers": 0}
"""Coefficients that are the same for all samples, and not learned."""


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tasks(*names: str) -> dict[str, ZooTask]:
    """Tasks that are attached, and whose data nobody asks for."""
    return {name: ZooTask(name=name) for name in names}


@torch.no_grad()
def filled(module: nn.Module, seed: int) -> nn.Module:
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(randn(*parameter.shape, seed=100 * seed + number))
    return module.double()


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_router_averages_the_coefficients_of_the_tokens(layers):
    router = filled(Router(5, 3, layers=layers, hidden=4), 1)
    x = randn(2, 7, 5, seed=2)
    rows = []
    for sample in x:
        total = torch.zeros(3, dtype=torch.float64)
        for token in sample:
            if layers == 2:
                token = (router.hidden_weight @ token + router.hidden_bias).clamp(min=0)
            total += router.bias if layers == 0 else router.weight @ token + router.bias
        rows.append(total / 7)
    torch.testing.assert_close(router(x).expand(2, 3), torch.stack(rows))
    alone = randn(2, 5, seed=3)
    torch.testing.assert_close(router(alone), router(alone[:, None]))


@pytest.mark.parametrize("rank_one", [True, False])
@pytest.mark.parametrize("leading", [(), (4,), (4, 2)])
def test_a_layer_computes_with_weights_put_together_for_each_sample(rank_one, leading):
    layer = filled(EnsembledLinear(5, 6, count=3, rank_one=rank_one), 1)
    x, layer.coefficients = randn(2, *leading, 5, seed=2), randn(2, 3, seed=3)
    for sample, y, r in zip(x, layer(x), layer.coefficients):
        if rank_one:
            weight = layer.weight + sum(r[t] * torch.outer(layer.up[:, t], layer.down[t]) for t in range(3))
            bias = layer.bias
        else:
            weight = layer.weight + sum(r[t] * layer.delta[t] for t in range(3))
            bias = layer.bias + sum(r[t] * layer.delta_bias[t] for t in range(3))
        torch.testing.assert_close(y, sample @ weight.T + bias)


@pytest.mark.parametrize("method", [WeightEnsemblingMoE, RankOneMoE, ParetoWeightEnsemblingMoE])
@pytest.mark.parametrize("kind", FAMILIES)
def test_constant_coefficients_give_task_arithmetic(method, kind, tiny, inputs, computed):
    base = tiny(kind)
    experts = {"a": tiny(kind, 1, base), "b": tiny(kind, 2, base)}
    fused = fuse(
        method(init_coefficient=0.4, scaling_factor=0.4, **STILL), experts, base, tasks=tasks("a", "b")
    )
    mixtures = sum(isinstance(module, WeightEnsembling) for module in fused.modules())
    assert mixtures == {"bert": 8, "t5": 8}.get(kind, 4)
    for name, parameter in base.named_parameters():
        start = parameter.double().clone()
        deltas = (expert.get_parameter(name).double() - start for expert in experts.values())
        parameter.copy_(start + 0.4 * sum(deltas))
    torch.testing.assert_close(
        computed(fused, inputs(kind)), computed(base, inputs(kind)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("chosen", ["a", "b"])
def test_a_router_that_takes_one_task_vector_whole_gives_that_expert(chosen, tiny, inputs, computed):
    base = tiny("clip_vision_model")
    experts = {"a": tiny("clip_vision_model", 1, base), "b": tiny("clip_vision_model", 2, base)}
    for expert in experts.values():
        for name, parameter in expert.named_parameters():
            if ".mlp." not in name:
                parameter.copy_(base.get_parameter(name))
    fused = fuse(WeightEnsemblingMoE(steps=0), experts, base, tasks=tasks("a", "b"))
    for name, parameter in fused.named_parameters():
        if ".router." in name:
            one_hot = torch.tensor([float(model == chosen) for model in experts])
            parameter.copy_(one_hot if name.endswith("router.bias") else torch.zeros_like(parameter))
    given = inputs("clip_vision_model")
    torch.testing.assert_close(computed(fused, given), computed(experts[chosen], given), rtol=1e-4, atol=1e-5)


def test_learning_makes_predictions_certain_and_changes_routers_alone():
    small = case("vit_tiny", count=3)
    options = {"router_layers": 2, "learning_rate": 0.02}
    start = fuse(WeightEnsemblingMoE(steps=0, **options), small.models, small.base, tasks=small.tasks)
    fused = fuse(WeightEnsemblingMoE(steps=25, **options), small.models, small.base, tasks=small.tasks)
    before, after = start.state_dict(), fused.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert changed == {name for name in before if ".router." in name}

    def entropy(module: nn.Module) -> float:
        total = 0.0
        for task in small.tasks.values():
            (batch,) = task.batches("validation", labelled=False)
            p = task.attach(module)(**batch.inputs).double().softmax(-1)
            total -= float((p * p.clamp(min=1e-12).log()).sum(-1).mean())
        return total

    assert entropy(fused) < 0.7 * entropy(start)


def test_a_sample_gets_the_same_whatever_else_is_in_the_batch():
    small = case("vit_tiny", count=2)
    fused = fuse(WeightEnsemblingMoE(steps=2), small.models, small.base, tasks=small.tasks)
    x = randn(6, 8).float()
    torch.testing.assert_close(fused(x), torch.cat([fused(row[None]) for row in x]))
    assert not fused.training
    assert all(layer.coefficients is None for layer in ensembled(fused))


@pytest.mark.parametrize("leading", [(), (4,), (4, 2)])
@pytest.mark.parametrize("samples", [1, 2])
def test_sparse_updates_compute_what_whole_ones_with_zeros_do(leading, samples):
    sparse = filled(EnsembledLinear(5, 6, count=3, kept=4), 1)
    whole = filled(EnsembledLinear(5, 6, count=3), 1)
    places = torch.stack(
        [torch.randperm(30, generator=torch.Generator().manual_seed(t))[:4] for t in range(3)]
    )
    sparse.positions.copy_(places)
    for name in ("weight", "bias", "delta_bias"):
        whole.get_parameter(name).data.copy_(sparse.get_parameter(name))
    whole.delta.data.zero_().flatten(1).scatter_(1, places, sparse.values)
    x, r = randn(2, *leading, 5, seed=2).requires_grad_(), randn(samples, 3, seed=3).requires_grad_()
    found = []
    for layer in (sparse, whole):
        layer.coefficients = r
        y = layer(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, r))))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_an_update_at_a_density_keeps_its_largest_entries():
    update = torch.tensor([[3.0, -5.0, 0.5], [1.0, 0.0, -2.0]])
    assert largest(update, 0.34).tolist() == [0, 1]
    assert largest(update, 1.0).tolist() == list(range(6))
    assert largest(torch.tensor([1.0, 2.0, -1.0, 1.0]), 0.5).tolist() == [0, 1]
    assert largest(torch.zeros(0), 0.5).tolist() == []


def test_sparse_updates_take_the_memory_of_their_entries(tmp_path, written):
    pytest.importorskip("fb_nlp_tasks")
    paths = written("llama", base=0, a=1, b=2)
    base = paths.pop("base")
    sizes = {}
    for density in (0.1, 1.0):
        method = EfficientWeightEnsemblingMoE(density=density, steps=0)
        out = fuse(method, paths, base, output=tmp_path / str(density), tasks=tasks("a", "b"))
        state = load(out).state_dict()
        sizes[density] = sum(tensor.nbytes for tensor in state.values())
        header = (out / "model.safetensors").stat().st_size - sizes[density]
        assert 0 < header < 20_000
    # 4 layers of three matrices of 16 x 24 = 384 entries, of which 38 have a value and a position.
    assert sizes[1.0] - sizes[0.1] == 4 * 3 * 2 * (384 * 4 - 38 * (4 + 4))


def test_the_efficient_mixture_has_one_router_and_pruned_updates(tmp_path, written, computed, inputs):
    pytest.importorskip("fb_nlp_tasks")
    paths = written("t5", base=0, a=1, b=2)
    base = paths.pop("base")
    method = EfficientWeightEnsemblingMoE(density=0.25, steps=0)
    out = fuse(method, paths, base, output=tmp_path / "out", tasks=tasks("a", "b"))
    loaded = load(out)
    in_memory = fuse(
        method, {name: load(path) for name, path in paths.items()}, load(base), tasks=tasks("a", "b")
    )
    assert torch.equal(computed(loaded, inputs("t5")), computed(in_memory, inputs("t5")))
    first = next(ensembled(in_memory))
    name = next(name for name, module in in_memory.named_modules() if module is first)
    key = f"{name.replace('.module', '')}.weight"
    update = load(paths["b"]).get_parameter(key).double() - load(base).get_parameter(key).double()
    best = update.flatten().abs().argsort(descending=True)[: first.values.shape[1]].sort().values
    assert torch.equal(first.positions[1].long(), best)
    torch.testing.assert_close(first.values[1].double(), update.flatten()[best], rtol=1e-6, atol=1e-7)
    routers = {name for name, _ in in_memory.named_parameters() if ".router." in name}
    assert len(routers) == 4
    for layer in ensembled(in_memory):
        assert layer.values.shape == layer.positions.shape == (2, round(0.25 * layer.weight.numel()))


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("method", [WeightEnsemblingMoE, RankOneMoE])
def test_what_is_written_loads_back(kind, method, written, computed, inputs, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    paths = written(kind, base=0, a=1, b=2)
    base = paths.pop("base")
    out = fuse(method(steps=0), paths, base, output=tmp_path / "out", tasks=tasks("a", "b"))
    in_memory = fuse(
        method(steps=0), {name: load(path) for name, path in paths.items()}, load(base), tasks=tasks("a", "b")
    )
    assert torch.equal(computed(load(out), inputs(kind)), computed(in_memory, inputs(kind)))
    assert json.loads((out / "fusion.json").read_text())["builder"] == "mixing/weight_ensembling"
    assert {file.suffix for file in out.iterdir()} == {".json", ".md", ".safetensors"}


def test_one_router_for_inputs_of_several_widths_is_refused(tiny):
    base = tiny("bert")
    with pytest.raises(UnsupportedArchitecture, match=r"inputs of \[16, 24\] entries"):
        fuse(EfficientWeightEnsemblingMoE(), {"a": tiny("bert", 1, base)}, base, tasks=tasks("a"))


def test_leading_directions_are_those_of_the_task_vector():
    base, expert = nn.Sequential(nn.Linear(6, 5)), nn.Sequential(nn.Linear(6, 5))
    with torch.no_grad():
        base[0].weight.copy_(randn(5, 6, seed=1))
        expert[0].weight.copy_(randn(5, 6, seed=2))
    method = RankOneMoE(rank=2, modules=("0",), **STILL)
    fused = fuse(method, {"a": expert, "b": base}, base, tasks=tasks("a", "b"))
    u, s, vh = torch.linalg.svd((expert[0].weight - base[0].weight).detach().double())
    layer = fused[0].module
    found = layer.up[:, :2].double() @ layer.down[:2].double()
    torch.testing.assert_close(found, (u[:, :2] * s[:2]) @ vh[:2], rtol=1e-5, atol=1e-5)
    assert not layer.down[2:].any()


def test_a_preference_decides_what_the_pareto_mixture_computes():
    small = case("vit_tiny", count=2)
    names = list(small.models)
    method = ParetoWeightEnsemblingMoE(
        steps=60, learning_rate=0.05, router_layers=1, preference={names[0]: 3.0, names[1]: 1.0}
    )
    fused = fuse(method, small.models, small.base, tasks=small.tasks)
    preferences = [m.preference.tolist() for m in fused.modules() if isinstance(m, WeightEnsembling)]
    assert preferences == [[0.75, 0.25]] * 3

    def losses(preference: list[float]) -> list[float]:
        set_preference(fused, preference)
        found = []
        for task in small.tasks.values():
            (batch,) = task.batches("validation", labelled=True)
            found.append(float(nn.functional.cross_entropy(task.attach(fused)(**batch.inputs), batch.labels)))
        return found

    first, second = losses([1.0, 0.0]), losses([0.0, 1.0])
    assert first[0] < second[0]
    assert second[1] < first[1]


@pytest.mark.parametrize("wrong", [{}, {"a": 1.0}, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0, "c": 1.0}])
def test_a_preference_must_name_every_model(wrong):
    with pytest.raises(ConfigError, match="preference"):
        ParetoWeightEnsemblingMoE(preference=wrong).check(["a", "b"])
    ParetoWeightEnsemblingMoE(preference={"b": 0.0, "a": 2.0}).check(["a", "b"])


def test_a_model_without_a_task_is_named():
    small = case("vit_tiny", count=2)
    with pytest.raises(MissingCapability, match="weight_ensembling_moe needs data"):
        fuse(WeightEnsemblingMoE(), small.models, small.base, tasks={"alpha": small.tasks["alpha"]})
