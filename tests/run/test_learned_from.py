"""A run starts from what another one has learned only if that was learned of the same models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toy

from fusionbench_core import ConfigError, Fused, FusionJob, ModelMethod, ModelPool, PooledModel, implements
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import default_registry
from fusionbench_core.report import Report
from fusionbench_core.run import Prepared, RunDirectory, Runner

RECORD = MethodRecord(name="learns", target="tests:Learns", summary="gives the base back")


@implements(RECORD)
class Learns(ModelMethod):
    def fuse(self, job: FusionJob) -> Fused:
        return Fused.weights({})


def run(models: Path, out: Path, names: str = "ab", learned_from: Path | None = None) -> Report:
    each = {
        name: PooledModel(name, source=toy.MlpSource(path=str(models / name))) for name in ["base", *names]
    }
    pool = ModelPool({name: each[name] for name in names}, each["base"])
    place = str(learned_from) if learned_from else None
    config = RunConfig(method={"name": "learns"}, modelpool={}, learned_from=place)
    prepared = Prepared(config, Learns(), RECORD, pool, None, EngineOptions())
    return Runner(prepared, RunDirectory(out), default_registry(), command=[]).execute()


@pytest.fixture
def first(tmp_path):
    """A run, its models, and a copy of these elsewhere."""
    toy.make_models(tmp_path / "models", count=3)
    (tmp_path / "first").mkdir()
    run(tmp_path / "models", tmp_path / "first")
    shutil.copytree(tmp_path / "models", tmp_path / "copied")
    return tmp_path / "first"


@pytest.mark.parametrize("models", ["models", "copied"])
def test_the_same_models_are_known_also_where_they_moved(first, tmp_path, models):
    (tmp_path / "second").mkdir()
    assert run(tmp_path / models, tmp_path / "second", learned_from=first).warnings == []


@pytest.mark.parametrize(
    ("names", "why"),
    [("ac", "c differs from what was b there"), ("ba", "b differs"), ("abc", "it had 2 models")],
)
def test_other_models_are_refused(first, tmp_path, names, why):
    (tmp_path / "second").mkdir()
    with pytest.raises(ConfigError, match="learned of other models") as caught:
        run(tmp_path / "models", tmp_path / "second", names, learned_from=first)
    assert why in str(caught.value)
    assert caught.value.exit_code == 2


def test_without_a_report_only_files_that_have_not_changed_are_known(first, tmp_path):
    (first / "report.json").unlink()
    (tmp_path / "second").mkdir()
    assert run(tmp_path / "models", tmp_path / "second", learned_from=first).warnings == []
    (tmp_path / "third").mkdir()
    [warning] = run(tmp_path / "copied", tmp_path / "third", learned_from=first).warnings
    assert "the base, a, b changed or moved" in warning
