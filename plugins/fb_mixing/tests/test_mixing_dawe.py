"""Data-adaptive weight ensembling against its formulas, written out in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from fb_mixing.ensembling.data_adaptive import pooled
from fb_mixing.ensembling.dawe import DataAdaptiveWeightEnsembling
from torch import Tensor, nn

from fusionbench_core import Batch, UnsupportedArchitecture, fuse, load
from fusionbench_core.pools.scope import Scope
from fusionbench_core.testing.zoo import ZooTask, case

Dawe = DataAdaptiveWeightEnsembling


def merged(base: nn.Module, experts: list[nn.Module], coefficients: list[Tensor]) -> nn.Module:
    """The base plus, tensor by tensor, the task vectors times these coefficients `(models,)`."""
    model = copy.deepcopy(base).double()
    for (name, parameter), shares in zip(model.named_parameters(), coefficients):
        start = base.get_parameter(name).double()
        parameter.copy_(start + sum(r * (e.get_parameter(name).double() - start)
                                    for r, e in zip(shares, experts)))  # fmt: skip
    return model


@pytest.mark.parametrize("granularity", ["task", "tensor"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_each_sample_has_its_own_weights(granularity, layers):
    small = case("vit_tiny", count=2)
    method = Dawe(granularity=granularity, router_layers=layers, steps=0)
    fused = fuse(method, small.models, small.base, tasks=small.tasks)
    generator = torch.Generator().manual_seed(1)
    router = fused.router
    for parameter in router.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(4, 8, generator=generator)
    tensors = len(list(small.base.parameters()))
    base = copy.deepcopy(small.base).double()
    for sample, found in zip(x, fused(x)):
        features = base(sample[None].double())[0]
        if layers == 2:
            features = (router.hidden_weight.double() @ features + router.hidden_bias.double()).clamp(min=0)
        r = router.bias.double() + (router.weight.double() @ features if layers else 0)
        each = r.view(2, tensors).T if granularity == "tensor" else r.expand(tensors, -1)
        model = merged(small.base, list(small.models.values()), list(each))
        torch.testing.assert_close(found.double(), model(sample[None].double())[0], rtol=1e-4, atol=1e-5)


def test_it_starts_near_task_arithmetic_and_learns_to_be_certain():
    small = case("vit_tiny", count=2)
    start = fuse(Dawe(steps=0, router_layers=0), small.models, small.base, tasks=small.tasks)
    arithmetic = fuse("task_arithmetic", small.models, small.base, scaling_factor=0.3)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(start(x), arithmetic(x), rtol=1e-4, atol=1e-5)
    options = {"batch_size": 4, "learning_rate": 0.02}
    before = fuse(Dawe(steps=0, **options), small.models, small.base, tasks=small.tasks)
    after = fuse(Dawe(steps=15, **options), small.models, small.base, tasks=small.tasks)
    changed = {n for n, each in before.state_dict().items() if not torch.equal(each, after.state_dict()[n])}
    assert changed == {"router.weight", "router.bias"}

    def entropy(module: nn.Module) -> float:
        total = 0.0
        for task in small.tasks.values():
            (batch,) = task.batches("validation", labelled=False)
            p = task.attach(module)(**batch.inputs).double().softmax(-1)
            total -= float((p * p.log()).sum(-1).mean())
        return total

    assert entropy(after) < entropy(before)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_models_of_transformers_load_back(kind, written, inputs, computed, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    paths = written(kind, base=0, a=1, b=2)
    base = paths.pop("base")
    tasks = {name: _Words(name=name, kind=kind) for name in paths}
    out = fuse(Dawe(steps=0), paths, base, output=tmp_path / "out", tasks=tasks)
    modules = {name: load(path) for name, path in paths.items()}
    in_memory = fuse(Dawe(steps=0), modules, load(base), tasks=tasks)
    in_memory.load_state_dict(load(out).state_dict())
    given = inputs(kind)
    assert torch.equal(computed(load(out), given), computed(in_memory, given))
    single = {name: value[:1] for name, value in given.items()}
    torch.testing.assert_close(computed(load(out), single), computed(load(out), given)[:1])


class _Words(ZooTask):
    kind: str

    def attach(self, trunk):
        attached = nn.Module()
        attached.trunk, attached.forward = trunk, lambda **given: trunk(**given)[0]
        return attached

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        words = {"input_ids": torch.tensor([[5, 9, 2], [1, 2, 3]])}
        words |= {"decoder_input_ids": torch.tensor([[1, 2], [4, 3]])} if self.kind == "t5" else {}
        yield Batch({key: each[: limit or 2] for key, each in words.items()}, None, torch.arange(limit or 2))


def test_padding_does_not_count_for_the_features():
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled({"last_hidden_state": states}, mask).tolist() == [[1.0, 2.0], [8.0, 9.0]]
    assert pooled((torch.tensor([3]), states)).tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_a_scope_without_parameters_is_refused():
    small = case("mlp", count=1)
    with pytest.raises(UnsupportedArchitecture, match="Mlp has no parameters in scope"):
        fuse(Dawe(), small.models, small.base, tasks=small.tasks, scope=Scope(include=("none",)))
