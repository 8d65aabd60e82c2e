from __future__ import annotations

import copy

import pytest
import torch
from fb_merging.data_driven.regmean_plusplus import RegMeanPlusPlus
from torch import Tensor, nn

from fusionbench_core import FusionJob, fuse
from fusionbench_core.tasks.adaptation import AdaptationTask
from fusionbench_core.testing.zoo import ZooTask, case


class Stack(nn.Module):
    """An input layer, two numbered blocks of two linear layers and a norm, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 6)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 6), nn.LayerNorm(6)) for _ in range(2)
        )
        self.leave = nn.Linear(6, 8)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.enter(x))
        for layer in self.layers:
            x = layer(x)
        return self.leave(x)


@pytest.fixture
def stacks() -> tuple[dict[str, nn.Module], nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = Stack()
        named = {}
        for name in ("one", "two"):
            named[name] = copy.deepcopy(base)
            for parameter in named[name].parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    return named, base


def solve(weights: list[Tensor], inputs: list[Tensor], ratio: float) -> Tensor:
    """The regression in float64."""
    grams = []
    for x in inputs:
        gram = x.double().T @ x.double() / len(x)
        grams.append(ratio * gram + (1 - ratio) * gram.diagonal().diag())
    right = sum(gram @ weight.double().T for gram, weight in zip(grams, weights))
    return torch.linalg.solve(sum(grams), right).T


def data_of(task: ZooTask, job: FusionJob) -> Tensor:
    seed = int(torch.randint(2**31, (), generator=job.generator("regmean_plusplus", task.name)))
    (batch,) = task.batches("train", labelled=False, limit=40, seed=seed)
    return batch.inputs["x"].double()


def test_every_layer_is_solved_on_what_the_merged_ones_before_it_give(stacks):
    named, base = stacks
    tasks = {name: ZooTask(name=name, seed=index) for index, name in enumerate(named)}
    merged = fuse("regmean_plusplus", named, base, tasks=tasks, samples=40).state_dict()
    job = FusionJob(pool=None)  # type: ignore[arg-type]
    states = [{k: v.double() for k, v in model.state_dict().items()} for model in named.values()]
    average = {name: (states[0][name] + states[1][name]) / 2 for name in states[0]}
    found = dict(average)
    hidden = [data_of(task, job) for task in tasks.values()]

    def regress(name: str, inputs: list[Tensor]) -> None:
        found[name] = solve([state[name] for state in states], inputs, 0.95)

    regress("enter.weight", hidden)
    hidden = [torch.tanh(x @ found["enter.weight"].T + found["enter.bias"]) for x in hidden]
    for block in ("layers.0", "layers.1"):
        regress(f"{block}.0.weight", hidden)
        inner = [
            torch.tanh(x @ s[f"{block}.0.weight"].T + s[f"{block}.0.bias"]) for x, s in zip(hidden, states)
        ]
        regress(f"{block}.2.weight", inner)
        hidden = [_block(x, found, block) for x in hidden]
    regress("leave.weight", hidden)
    for name, expected in found.items():
        torch.testing.assert_close(merged[name].double(), expected, rtol=2e-3, atol=2e-4, msg=name)


def _block(x: Tensor, state: dict[str, Tensor], block: str) -> Tensor:
    x = torch.tanh(x @ state[f"{block}.0.weight"].T + state[f"{block}.0.bias"])
    x = x @ state[f"{block}.2.weight"].T + state[f"{block}.2.bias"]
    return nn.functional.layer_norm(x, (6,), state[f"{block}.3.weight"], state[f"{block}.3.bias"])


def test_the_models_are_left_as_they_were_and_progress_names_the_layers(stacks):
    named, base = stacks
    from fusionbench_core import ModelPool, PooledModel

    pool = ModelPool(
        {name: PooledModel(name, content=model) for name, model in named.items()},
        PooledModel("base", content=base),
    )
    tasks = {name: AdaptationTask(ZooTask(name=name, seed=1)) for name in named}
    shown: list[str] = []
    before = copy.deepcopy(base.state_dict())
    job = FusionJob(pool=pool, tasks=tasks, on_progress=lambda done, total, message: shown.append(message))
    RegMeanPlusPlus(samples=8).fuse(job)
    assert shown == ["enter", "layers.0", "layers.1", "leave"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())
    assert {name: task.used for name, task in tasks.items()} == {name: {"train": 8} for name in named}


@pytest.mark.parametrize("architecture", ["tied_lm", "vit_tiny", "conv_bn"])
def test_one_model_and_copies_of_one_give_that_model(architecture):
    small = case(architecture, count=1, samples=6)
    model, task = small.models["alpha"], small.tasks["alpha"]
    for models in ({"alpha": model}, {"alpha": model, "again": model}):
        tasks = {name: task.model_copy(update={"name": name}) for name in models}
        merged = fuse("regmean_plusplus", models, small.base, tasks=tasks)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(merged.state_dict()[name], tensor, rtol=0, atol=0)
