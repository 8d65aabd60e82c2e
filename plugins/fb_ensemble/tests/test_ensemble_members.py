"""Members in memory all at once, or one at a time: the outputs are the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fb_ensemble import members as under_test
from fb_ensemble.builder import build_predictor, build_task_router
from fb_ensemble.confidence_routing import ConfidenceRouting
from fb_ensemble.max_model_predictor import MaxModelPredictor
from fb_ensemble.members import SwappedMembers
from fb_ensemble.simple_ensemble import SimpleEnsemble
from fb_ensemble.stacking import Stacking
from fb_ensemble.task_routing import TaskRouting
from fb_ensemble.weighted_ensemble import WeightedEnsemble
from torch import nn

from fusionbench_core import (
    AdaptationTask,
    BuildContext,
    ConfigError,
    FusionJob,
    LiveMembers,
    ModelPool,
    ModelSource,
    PooledModel,
    SourceRecord,
    TaskConditioned,
    implements,
    open_checkpoint,
    write_safetensors,
)
from fusionbench_core.tasks.attach import attach
from fusionbench_core.testing import case


@implements(SourceRecord(name="zoo_mlp", target="test_ensemble_members:ZooMlp", summary="the kit's network"))
class ZooMlp(ModelSource):
    def open(self):
        return open_checkpoint(self.path)

    def skeleton(self) -> nn.Module:
        return case("mlp", count=1).base


@pytest.fixture(scope="module")
def pool(zoo, tmp_path_factory) -> ModelPool:
    """The kit's models, in files."""
    root: Path = tmp_path_factory.mktemp("models")
    for name, model in zoo.models.items():
        (root / name).mkdir()
        write_safetensors(root / name / "model.safetensors", model.state_dict())
    return ModelPool({name: PooledModel(name, source=ZooMlp(path=str(root / name))) for name in zoo.models})


def outputs(fused: nn.Module | None, zoo) -> dict[str, torch.Tensor]:
    assert fused is not None
    found = {}
    for name, task in zoo.tasks.items():
        for batch in task.batches("test", labelled=False, batch_size=20):
            found[f"{name} {int(batch.indices[0])}"] = attach(task, fused)(**batch.inputs)
    return found


METHODS = [
    SimpleEnsemble(),
    WeightedEnsemble(weights=(1, 2, 3), space="probabilities"),
    WeightedEnsemble(weights="fitted"),
    MaxModelPredictor(),
    ConfidenceRouting(),
    TaskRouting(),
    Stacking(),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_taking_turns_in_memory_changes_no_bit(method, pool, zoo):
    found = {}
    for in_memory in ("all", "one"):
        tasks = {name: AdaptationTask(task, labels=True) for name, task in zoo.tasks.items()}
        chosen = type(method).model_validate({**method.model_dump(), "in_memory": in_memory})
        fused = chosen.fuse(FusionJob(pool, tasks=tasks))
        found[in_memory] = outputs(fused.module, zoo)
        assert fused.details["parameters"] == 3 * sum(p.numel() for p in zoo.base.parameters())
    for name, expected in found["all"].items():
        assert torch.equal(found["one"][name], expected), name


def parameters(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def test_one_at_a_time_holds_the_parameters_of_one(pool, zoo):
    one = parameters(zoo.base)
    assert parameters(SimpleEnsemble(in_memory="one").fuse(FusionJob(pool)).module) == one
    assert parameters(SimpleEnsemble(in_memory="all").fuse(FusionJob(pool)).module) == 3 * one


@pytest.mark.parametrize(
    ("free", "expected"), [(None, LiveMembers), (10**9, LiveMembers), (2000, SwappedMembers)]
)
def test_members_take_turns_if_half_of_the_free_memory_is_too_small(pool, zoo, monkeypatch, free, expected):
    monkeypatch.setattr(under_test, "available_memory", lambda: free)
    module = SimpleEnsemble().fuse(FusionJob(pool)).module
    assert module is not None
    assert type(module.members) is expected


def test_the_limit_is_half_of_the_free_memory_for_all_weights_in_fp32(pool, zoo, monkeypatch):
    needed = 3 * 4 * parameters(zoo.base)
    for free, expected in ((2 * needed, LiveMembers), (2 * needed - 2, SwappedMembers)):
        monkeypatch.setattr(under_test, "available_memory", lambda free=free: free)
        module = SimpleEnsemble().fuse(FusionJob(pool)).module
        assert module is not None
        assert type(module.members) is expected


def test_models_in_memory_cannot_take_turns(job):
    with pytest.raises(ConfigError, match="in memory already"):
        SimpleEnsemble(in_memory="one").fuse(job())


@pytest.mark.parametrize(
    ("method", "build"), [(SimpleEnsemble, build_predictor), (TaskRouting, build_task_router)]
)
def test_a_rebuilt_ensemble_takes_turns_as_it_did(method, build, pool, zoo):
    fused = method(in_memory="one").fuse(FusionJob(pool))
    again = build(
        BuildContext(
            arguments=fused.arguments,
            skeleton=lambda: zoo.base,
            member=pool.module,
            checkpoint=pool.checkpoint,
        )
    )
    assert isinstance(again.members, SwappedMembers)
    expected = outputs(fused.module, zoo)
    assert all(torch.equal(found, expected[name]) for name, found in outputs(again, zoo).items())


def test_views_of_members_that_take_turns_are_independent(pool, zoo):
    router = TaskRouting(in_memory="one").fuse(FusionJob(pool)).module
    assert isinstance(router, TaskConditioned)
    views = {name: router.for_task(name) for name in zoo.models}
    x = torch.ones(2, 8)
    for name, view in views.items():
        assert torch.equal(view(x), zoo.models[name](x))
