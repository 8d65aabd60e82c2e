"""What an interrupted training left is used again, unless it was of other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fusionbench_core import Fused, FusionJob, MethodError, ModelMethod, ModelPool, PooledModel, implements
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import default_registry
from fusionbench_core.run import Prepared, RunDirectory, Runner

RECORD = MethodRecord(name="stops", target="tests:Stops", summary="notes what was kept, and stops")
FOUND: list[list[str]] = []


@implements(RECORD)
class Stops(ModelMethod):
    def fuse(self, job: FusionJob) -> Fused:
        assert job.directory is not None
        FOUND.append([path.name for path in job.directory.glob("*")])
        job.directory.mkdir(exist_ok=True)
        (job.directory / "training.safetensors").touch()
        raise MethodError("stopped")


def run(path: Path) -> list[str]:
    """What the method finds that was kept."""
    model: dict[str, Any] = {"w": torch.zeros(2)}
    pool = ModelPool({"one": PooledModel("one", content=model)}, PooledModel("base", content=dict(model)))
    config = RunConfig(method={"name": "stops"}, modelpool={})
    prepared = Prepared(config, Stops(), RECORD, pool, None, EngineOptions())
    with pytest.raises(MethodError, match="stopped"):
        Runner(prepared, RunDirectory(path), default_registry(), command=[]).execute()
    return FOUND.pop()


def test_a_training_of_other_models_is_not_gone_on_with(tmp_path):
    assert run(tmp_path) == []
    assert run(tmp_path) == ["training.safetensors"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "key": "of other models"}))
    assert run(tmp_path) == []
