"""New plugins of every kind, installed beside the core alone: tests, checks and a run with all three."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from build import ProjectBuilder
from pyproject_hooks import quiet_subprocess_runner

from fusionbench_core.scaffold import KINDS, names_for, new_plugin

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Kind -> the directory of a new project."""
    root = tmp_path_factory.mktemp("made")
    for kind in KINDS:
        new_plugin(names_for(f"new-{kind}"), kind, root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def environment(made, environments, wheels, tmp_path_factory):
    """The core and the three new plugins, from wheels, and nothing else of ours."""
    dist = tmp_path_factory.mktemp("dist")
    built = [
        Path(ProjectBuilder(path, runner=quiet_subprocess_runner).build("wheel", dist))
        for path in made.values()
    ]
    return environments.of([wheels["fusionbench-core"].path, *built], "new")


def test_all_of_them_are_ok(environment):
    rows = {row["distribution"]: row["status"] for row in environment.json("plugin", "list")}
    assert rows == dict.fromkeys(("fb-new-method", "fb-new-source", "fb-new-task"), "ok")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass(environment, made, kind, tmp_path):
    # Copied, so that what is tested is what was installed.
    shutil.copytree(made[kind] / "tests", tmp_path / "tests")
    code = "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests']))"
    done = environment.run_code(code, cwd=tmp_path, ok=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_conformant(environment, kind):
    words = ("plugin", "check", f"fb-new-{kind}", "--level", "full", "--format", "json")
    # In one process: for one record, starting another takes longer than its checks.
    done = environment.run(*words, "--jobs", "1", ok=False)
    report = json.loads(done.stdout)
    failing = {r["check"]: r["message"] for r in report["results"] if r["status"] in ("failed", "error")}
    assert failing == {}
    assert report["conformant"]


def test_the_method_fuses_models_of_the_source_and_the_task_measures_them(environment, made, tmp_path):
    for kind in ("source", "task"):
        shutil.copytree(made[kind] / "examples", tmp_path, dirs_exist_ok=True)
    environment.run_code((tmp_path / "make_models.py").read_text(), cwd=tmp_path)
    run = ("run", "method=new_method", "modelpool=./pool.yaml", "taskpool=./tasks.yaml")
    environment.run(*run, "-o", "runs/all", cwd=tmp_path)
    report = json.loads((tmp_path / "runs/all/report.json").read_text())
    assert report["fusionbench"]["status"] == "complete"
    assert 0 < report["average"]["accuracy"] < 1


def test_the_example_of_the_task_measures(environment, made, tmp_path):
    printed = environment.run_code((made["task"] / "examples/measure.py").read_text(), cwd=tmp_path).stdout
    assert printed.startswith("500 points, accuracy 0.")
