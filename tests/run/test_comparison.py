"""`fb run` with a config that compares: what its one table shows."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
import yaml

PRESETS = """
from fusionbench_core import hookimpl
from fusionbench_core.records import ConfigRecord


@hookimpl
def fb_configs():
    yield ConfigRecord(package="presets")
"""


def compare(workspace, config: dict, methods: dict, *words: str):
    """Run a comparison over one benchmark, `toys`, whose root config is `config`; the output is in `out`.

    `words` run another command in its place.
    """
    presets = workspace.root / "presets"
    presets.mkdir(exist_ok=True)
    (presets / "__init__.py").touch()
    (presets / "toys.yaml").write_text(yaml.safe_dump(config))
    (workspace.root / "with_presets.py").write_text(PRESETS)
    root = workspace.write(compare={"benchmarks": ["toys"], "methods": methods})
    path = os.pathsep.join([workspace.environment()["PYTHONPATH"], str(workspace.root)])
    words = words or ("run", "-o", "out")
    return workspace.fb(
        "--plugin",
        "with_presets.py",
        *words,
        "-c",
        str(root),
        env={"PYTHONPATH": path, "TOY_FAIL_AT": "2.weight"},
    )


def test_a_run_that_fails_costs_no_other_one(workspace):
    methods = {"weak": {"method": "slow"}, "plain": {"method": "mean"}}
    done = compare(workspace, workspace.config, methods)
    assert done.returncode == 6
    assert "one run of the comparison failed, the others are finished" in done.stderr
    assert "toys: weak: " in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("plain")] == ["plain"]
    assert "| plain |" in Path(workspace.root, "out/toys/comparison.md").read_text()
    again = compare(workspace, workspace.config, methods)
    assert again.returncode == 6
    assert "done already" in again.stderr


def test_models_to_compare_with_stand_around_the_methods(workspace):
    recorded = {
        kind: {"left": {"accuracy": left}, "right": {"accuracy": right}}
        for kind, left, right in (
            ("multi_task", 0.6, 0.7),
            ("individual", 0.8, 1.0),
            ("pretrained", 0.4, 0.2),
        )
    }
    tasks = {**workspace.config["taskpool"], "baselines": recorded}
    config = {**workspace.config, "taskpool": tasks}
    done = compare(workspace, config, {"plain": {"method": "mean"}})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[1] == ["method", "left", "right", "average", "of", "individual"]
    assert [line[0] for line in lines[2:6]] == [
        "(pretrained)", "plain", "(individual)", "(multi_task)",
    ]  # fmt: skip
    assert lines[2][1:] == ["40.0", "20.0", "30.0", "35.0"]  # of individual: (0.4 / 0.8 + 0.2) / 2
    assert lines[5][1:] == ["60.0", "70.0", "65.0", "72.5"]
    table = Path(workspace.root, "out/toys/comparison.md").read_text()
    assert r"| multi\_task | 60.0 | 70.0 | 65.0 | 72.5 |" in table


def test_a_plan_shows_every_run_and_what_cannot_work(workspace):
    methods = {
        "plain": {"method": "mean"},
        "again": {"method": "mean"},
        "wrong": {"method": "mean", "parameters": {"no": 1}},
    }
    done = compare(workspace, workspace.config, methods, "plan")
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[0] == ["toys"]
    assert [line[:2] for line in lines[2:]] == [["again", "toy/mean"], ["plain", "toy/mean"]]
    assert done.returncode == 2
    assert "one run of the comparison cannot work" in done.stderr
    assert "toys: wrong: " in done.stderr
    assert not Path(workspace.root, "out").exists()


def test_a_plan_in_json_gives_the_cost_of_every_run(workspace):
    done = compare(workspace, workspace.config, {"plain": {"method": "mean"}}, "plan", "--json")
    plan = json.loads(done.stdout)["toys"]["plain"]
    alone = json.loads(workspace.fb("plan", "-c", str(workspace.write()), "--json").stdout)
    assert (plan["read_bytes"], plan["write_bytes"]) == (alone["read_bytes"], alone["write_bytes"])


def own(workspace, *words: str, section: dict | None = None, **changes):
    """`fb WORDS` with a comparison over `toys`, a config beside it in the user's directory."""
    (workspace.root / "toys.yaml").write_text(yaml.safe_dump({**workspace.config, **changes}))
    section = {"benchmarks": ["toys"], "methods": {"plain": {"method": "mean"}}, **(section or {})}
    return workspace.fb(*words, "-c", str(workspace.write(compare=section)))


def test_benchmarks_are_configs_of_the_users_directory_as_well(workspace):
    done = own(workspace, "run", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert Path(workspace.root, "out/toys/plain/report.json").is_file()


def test_a_benchmark_that_is_nowhere_is_named(workspace):
    done = own(workspace, "run", section={"benchmarks": ["tyos"]})
    assert done.returncode == 2
    assert "there is no config 'tyos'" in done.stderr
    assert "did you mean 'toys'?" in done.stderr


def test_a_wrong_key_in_a_benchmark_is_named_with_its_file(workspace):
    done = own(workspace, "plan", taskpol={"task": "blobs"})
    assert done.returncode == 2
    assert "taskpol" in done.stderr
    assert "toys.yaml" in done.stderr
    assert "did you mean" in done.stderr


def test_a_wrong_key_that_was_typed_is_in_no_file(workspace):
    done = own(workspace, "plan", "engine.thread=1")
    assert done.returncode == 2
    assert "did you mean 'threads'?" in done.stderr
    assert "toys.yaml" not in done.stderr


def test_a_wrong_key_of_a_method_of_a_comparison_is_told_with_what_was_meant(workspace):
    done = own(workspace, "plan", section={"methods": {"plain": {"method": "mean", "paramters": {}}}})
    assert done.returncode == 2
    assert "compare.methods.plain.paramters" in done.stderr
    assert "did you mean 'parameters'?" in done.stderr


def test_a_comparison_is_no_benchmark(workspace):
    done = own(workspace, "plan", compare={"benchmarks": ["toys"], "methods": {"x": {"method": "mean"}}})
    assert done.returncode == 2
    assert "it is a config of several runs itself" in done.stderr


def test_a_benchmark_named_twice_is_run_once(workspace):
    done = own(workspace, "run", "-o", "out", "--json", section={"benchmarks": ["toys", "toys"]})
    assert done.returncode == 0, done.stderr
    assert "average" in json.loads(done.stdout)["toys"]["plain"]


@pytest.mark.parametrize("label", ["../evil", "/evil", "a/../../evil", ""])
def test_no_label_leads_out_of_the_directory(workspace, label):
    done = own(workspace, "run", "-o", "deep/out", section={"methods": {label: {"method": "mean"}}})
    assert done.returncode == 2
    assert "must lie inside" in done.stderr
    assert not list(workspace.root.rglob("evil"))


@pytest.mark.parametrize("seeds", [[-1], ["x"], 3, [2**63]])
def test_seeds_that_are_none_are_refused_before_anything_runs(workspace, seeds):
    done = own(workspace, "run", "-o", "out", section={"seeds": seeds})
    assert done.returncode == 2
    assert "compare.seeds" in done.stderr
    assert "tuple" not in done.stderr
    assert not (workspace.root / "out").exists()


def test_seeds_are_runs_of_one_row(workspace):
    section = {"seeds": [3, 5, 3]}
    done = own(workspace, "run", "-o", "out", "--json", section=section)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)["toys"]["plain"]
    assert [report["fusionbench"]["seed"] for report in reports] == [3, 5]
    kept = [
        json.loads(Path(workspace.root, f"out/toys/plain/seed-{seed}/report.json").read_text())
        for seed in (3, 5)
    ]
    assert kept == reports
    averages = [report["average"]["accuracy"] for report in reports]
    mean, spread = statistics.fmean(averages), statistics.stdev(averages)
    table = Path(workspace.root, "out/toys/comparison.md").read_text()
    assert f"{100 * mean:.1f} ± {100 * spread:.1f}" in table
    planned = json.loads(own(workspace, "plan", "--json", section=section).stdout)
    assert list(planned["toys"]) == ["plain"]


def test_a_typo_in_a_methods_name_is_not_left_out(workspace):
    methods = {"plain": {"method": "mean"}, "typo": {"method": "mena"}}
    done = compare(workspace, workspace.config, methods)
    assert done.returncode == 2
    assert "no method is called 'mena'" in done.stderr
    assert "did you mean 'mean'?" in done.stderr
    assert not Path(workspace.root, "out").exists()


def test_methods_of_plugins_that_are_not_installed_are_left_out(workspace):
    absent = {"others": {"method": "somebody/method"}}
    done = compare(workspace, workspace.config, {"plain": {"method": "mean"}, **absent})
    assert done.returncode == 0, done.stderr
    assert "left out: no method is called 'somebody/method'" in done.stderr
