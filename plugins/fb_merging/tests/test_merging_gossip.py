from __future__ import annotations

from typing import Any

import pytest
import torch
from fb_merging.learned.adamerging import AdaMerging
from fb_merging.learned.gossip import Gossip
from pydantic import ValidationError
from torch import Tensor

from fusionbench_core import AdaptationTask, Fused, FusionJob, ModelPool, PooledModel
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=4, samples=24)


def job_of(**more: Any) -> FusionJob:
    models = {name: PooledModel(name, content=model) for name, model in CASE.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in CASE.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=CASE.base)), tasks=tasks, **more)


def state_of(fused: Fused) -> dict[str, Tensor]:
    assert fused.state is not None
    return {name: tensor.double() for name, tensor in fused.state.items()}


@pytest.mark.parametrize(
    ("settings", "heard"),
    [
        ({}, {0: (3, 0, 1), 1: (0, 1, 2), 2: (1, 2, 3), 3: (2, 3, 0)}),
        ({"topology": "rotate"}, {0: (0, 1), 1: (1, 2), 2: (2, 3), 3: (3, 0)}),
        (
            {"topology": "rotate", "neighbours": 6},
            dict.fromkeys(range(4), (0, 1, 2, 3)),
        ),
    ],
)
def test_without_steps_rounds_mix_the_nodes_that_hear_each_other(settings, heard):
    found = state_of(Gossip(steps=0, rounds=3, init_coefficient=0.4, **settings).fuse(job_of()))
    for name, _ in CASE.base.named_parameters():
        start = CASE.base.state_dict()[name].double()
        nodes = [model.state_dict()[name].double() for model in CASE.models.values()]
        for _ in range(3):
            nodes = [start + 0.4 * sum(nodes[other] - start for other in heard[node]) for node in range(4)]
        torch.testing.assert_close(found[name], sum(nodes) / 4, rtol=1e-5, atol=1e-5)


def test_one_round_in_which_all_hear_each_other_is_adamerging():
    settings: dict[str, Any] = {"steps": 4, "learning_rate": 0.05, "batch_size": 24}
    gossip = Gossip(rounds=1, topology="rotate", neighbours=3, **settings).fuse(job_of())
    plain = AdaMerging(**settings).fuse(job_of())
    # Batches are whole splits, so every node learns the same, up to the order of its sums.
    for name, tensor in state_of(plain).items():
        torch.testing.assert_close(state_of(gossip)[name], tensor, rtol=1e-3, atol=1e-4)


def test_nodes_adapt_to_what_they_have_heard_of():
    served = {}
    for own in (True, False):
        job = job_of()
        Gossip(rounds=1, steps=1, topology="rotate", batch_size=24, own_data=own).fuse(job)
        served[own] = {name: sum(task.used.values()) for name, task in job.tasks.items()}
    # Each task is known to its own node and to the one before it; to all four without that limit.
    assert served == {True: dict.fromkeys(CASE.tasks, 2 * 24), False: dict.fromkeys(CASE.tasks, 4 * 24)}


def test_the_reports_coefficients_make_the_same_model_again():
    fused = Gossip(rounds=2, steps=2, learning_rate=0.05).fuse(job_of())
    again = AdaMerging(steps=0, init_coefficient=fused.details["coefficients"]).fuse(job_of())
    for name, tensor in state_of(fused).items():
        torch.testing.assert_close(state_of(again)[name], tensor)


@pytest.mark.parametrize("stop", [3, 9])
def test_an_interrupted_gossip_goes_on(tmp_path, stop):
    method = Gossip(rounds=2, steps=2, batch_size=5)
    whole = method.fuse(job_of())
    seen = []

    def interrupt(done: int, total: int, message: str) -> None:
        seen.append(done)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(job_of(directory=tmp_path, on_progress=interrupt))
    resumed = method.fuse(job_of(directory=tmp_path))
    assert resumed.details == whole.details
    assert all(torch.equal(tensor, state_of(resumed)[name]) for name, tensor in state_of(whole).items())


@pytest.mark.parametrize(("stop", "taken"), [(3, [2, 1, 0, 0]), (8, [2, 2, 2, 2])])
def test_an_interrupted_gossip_can_end_with_the_round_it_was_in(tmp_path, stop, taken):
    method, seen = Gossip(rounds=2, steps=2, batch_size=5), []

    def interrupt(done: int, total: int, message: str) -> None:
        seen.append(done)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(job_of(directory=tmp_path, on_progress=interrupt))
    finished = method.fuse(job_of(directory=tmp_path, finish=True))
    losses = finished.details["losses"]["series"]
    assert [len(each) for each in losses.values()] == taken
    if stop == 8:
        first = method.model_copy(update={"rounds": 1}).fuse(job_of())
        assert all(torch.equal(tensor, state_of(finished)[name]) for name, tensor in state_of(first).items())


def test_a_ring_takes_no_number_of_neighbours():
    with pytest.raises(ValidationError, match="neighbours"):
        Gossip(neighbours=2)
