"""A run can start from what another one has learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fb_merging.learned.adamerging import AdaMerging
from fb_merging.learned.adarank import AdaRank
from fb_merging.learned.concrete_adamerging import ConcreteAdaMerging
from fb_merging.learned.doge_adamerging import DogeAdaMerging
from fb_merging.learned.gossip import Gossip
from torch import Tensor

from fusionbench_core import AdaptationTask, ConfigError, Fused, FusionJob, ModelPool, PooledModel
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=2, samples=24)


def job_of(**more: Any) -> FusionJob:
    models = {name: PooledModel(name, content=model) for name, model in CASE.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in CASE.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=CASE.base)), tasks=tasks, **more)


def state_of(fused: Fused) -> dict[str, Tensor]:
    assert fused.state is not None
    return dict(fused.state)


@pytest.mark.parametrize(
    ("method", "none"),
    [
        (AdaMerging(steps=3, learning_rate=0.05), {"steps": 0}),
        (AdaRank(steps=3, learning_rate=0.05), {"steps": 0}),
        (DogeAdaMerging(steps=3, learning_rate=0.05), {"steps": 0}),
        (ConcreteAdaMerging(steps=3, mask_steps=2, learning_rate=0.05), {"steps": 0, "mask_steps": 0}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_without_further_steps_it_gives_the_same_model(tmp_path, method, none):
    learned = state_of(method.fuse(job_of(directory=tmp_path)))
    untouched = state_of(method.model_copy(update=none).fuse(job_of()))
    again = state_of(method.model_copy(update=none).fuse(job_of(learned_from=tmp_path)))
    assert any(not torch.equal(tensor, untouched[name]) for name, tensor in learned.items())
    assert all(torch.equal(tensor, again[name]) for name, tensor in learned.items())


def test_further_steps_go_on_from_there(tmp_path):
    first = AdaMerging(steps=5, learning_rate=0.05).fuse(job_of(directory=tmp_path))
    more = AdaMerging(steps=2, learning_rate=0.01).fuse(job_of(learned_from=tmp_path))
    assert len(more.details["losses"]["series"]["entropy"]) == 2
    assert more.details["losses"]["series"]["entropy"][0] < first.details["losses"]["series"]["entropy"][0]


def test_what_does_not_fit_is_refused(tmp_path):
    AdaMerging(steps=1).fuse(job_of(directory=tmp_path / "adaptation"))
    learned = tmp_path / "adaptation"
    with pytest.raises(ConfigError, match="does not fit adamerging") as caught:
        AdaMerging(steps=1, granularity="task").fuse(job_of(learned_from=learned))
    assert "coefficients should be" in str(caught.value)
    with pytest.raises(ConfigError, match="nothing that gossip could start from") as caught:
        Gossip(steps=1, rounds=1).fuse(job_of(learned_from=learned))
    assert "training" in str(caught.value)
