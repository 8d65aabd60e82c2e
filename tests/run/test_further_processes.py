"""Runs on several devices: what the processes do that Fabric starts beside the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fusionbench_core import Fused, FusionJob, ModelMethod, ModelPool, PooledModel, implements
from fusionbench_core.config.schema import FabricConfig, RunConfig
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.errors import ConfigError
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import default_registry
from fusionbench_core.run import Prepared
from fusionbench_core.run.processes import is_further, refuse_several, take_part

RECORD = MethodRecord(name="learner", target="tests:Learner", summary="notes what it is given")
JOBS: list[FusionJob] = []


@implements(RECORD)
class Learner(ModelMethod):
    def fuse(self, job: FusionJob) -> Fused:
        JOBS.append(job)
        return Fused.weights({})


@pytest.mark.parametrize(
    ("settings", "environment", "further"),
    [
        ({"devices": 2}, {}, False),
        ({"devices": 2}, {"LOCAL_RANK": "0", "NODE_RANK": "0"}, False),
        ({"devices": 2}, {"LOCAL_RANK": "1", "NODE_RANK": "0"}, True),
        ({"devices": [0, 1]}, {"RANK": "3"}, True),
        ({"devices": "auto"}, {"RANK": "1"}, True),
        ({"num_nodes": 2}, {"NODE_RANK": "1"}, True),
        ({"devices": [3]}, {"LOCAL_RANK": "1"}, False),
        # Independent runs of one Slurm job.
        ({}, {"SLURM_PROCID": "1"}, False),
    ],
)
def test_only_processes_of_runs_on_several_devices_are_further_ones(
    monkeypatch, settings, environment, further
):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_further(FabricConfig(**settings)) == further


def test_a_further_process_takes_part_in_what_is_learned_and_keeps_nothing():
    model: dict[str, Any] = {"w": torch.zeros(2)}
    pool = ModelPool({"one": PooledModel("one", content=model)})
    config = RunConfig(method={"name": "learner"}, modelpool={})
    JOBS.clear()
    take_part(Prepared(config, Learner(), RECORD, pool, None, EngineOptions()), default_registry())
    (job,) = JOBS
    assert list(job.pool) == ["one"]
    assert job.directory is None


def test_comparisons_and_stages_on_several_devices_are_refused():
    refuse_several(FabricConfig(), "a comparison")
    with pytest.raises(ConfigError, match="a comparison cannot use several devices") as error:
        refuse_several(FabricConfig(devices=2), "a comparison")
    assert "one by one" in str(error.value)


def test_a_further_process_neither_writes_nor_prints(workspace):
    config = workspace.write(fabric={"accelerator": "cpu", "devices": 2})
    done = workspace.fb("run", "-c", str(config), "-o", "out", env={"LOCAL_RANK": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (workspace.root / "out").exists()
    assert not (workspace.root / "runs").exists()
