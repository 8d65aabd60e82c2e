"""`fb run` from end to end: what it leaves behind, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from fusionbench_core import open_checkpoint


def test_a_run_leaves_model_results_and_reports(workspace):
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out")
    assert done.returncode == 0, done.stderr
    out = workspace.root / "out"
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "config.yaml", "plan.json", "environment.json", "log.txt", "model", "results",
        "report.json", "report.md", "report.html",
    }  # fmt: skip
    merged = open_checkpoint(out / "model")
    parts = [open_checkpoint(workspace.models[name]) for name in "abc"]
    for key in merged:
        expected = sum(part.tensor(key).double() for part in parts) / 3
        torch.testing.assert_close(merged.tensor(key).double(), expected, rtol=0, atol=1e-6)
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {"model_info", "left", "right", "average", "fusionbench"}
    assert report["left"]["n"] == 60
    mean = (report["left"]["accuracy"] + report["right"]["accuracy"]) / 2
    assert report["average"]["accuracy"] == pytest.approx(mean)
    assert report["model_info"]["all_params"] == 4 * 8 + 8 + 8 * 3 + 3
    assert report["fusionbench"]["artefact"]["content_hash"] == merged.fingerprint()
    assert "left" in done.stdout
    assert "report.html" in done.stdout


def test_json_on_stdout_is_the_report_and_nothing_else(workspace):
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out", "--json")
    assert json.loads(done.stdout) == json.loads((workspace.root / "out" / "report.json").read_text())
    assert done.stderr == ""


def test_equal_runs_give_equal_artefacts(workspace):
    config = str(workspace.write())
    for name in ("one", "two"):
        assert workspace.fb("run", "-c", config, f"output_dir={name}", "taskpool=null").returncode == 0
    one, two = (workspace.root / name / "model" for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_a_run_can_be_run_again_from_its_own_config(workspace):
    workspace.fb("run", "-c", str(workspace.write()), "-o", "out")
    again = workspace.fb("run", "-c", "out/config.yaml", "-o", "again")
    assert again.returncode == 0, again.stderr
    reports = [json.loads((workspace.root / name / "report.json").read_text()) for name in ("out", "again")]
    assert reports[0]["average"] == reports[1]["average"]


def test_a_module_loads_back_in_a_fresh_process(workspace):
    done = workspace.fb("run", "-c", str(workspace.write(method={"name": "stack"})), "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((workspace.root / "out/model/fusion.json").read_text())
    assert manifest["builder"] == "summed"
    measured = workspace.fb("evaluate", "out/model", "-t", str(write_tasks(workspace)), "--json")
    assert measured.returncode == 0, measured.stderr
    report, results = json.loads(done.stdout), json.loads(measured.stdout)
    assert results["left"]["accuracy"] == report["left"]["accuracy"]
    assert results["left"]["samples_sha256"] == report["left"]["samples_sha256"]


def write_tasks(workspace):
    import yaml

    path = workspace.root / "tasks.yaml"
    path.write_text(yaml.safe_dump(workspace.config["taskpool"]))
    return path


def test_baselines_are_measured_on_demand(workspace):
    done = workspace.fb(
        "run", "-c", str(data_by_name(workspace)), "-o", "out", "check_baselines=true", "--json"
    )
    assert done.returncode == 0, done.stderr
    baselines = json.loads(done.stdout)["fusionbench"]["baselines"]
    assert set(baselines["pretrained"]) == {"left", "right"}
    assert set(baselines["individual"]) == {"left", "right"}
    assert "recorded" not in baselines["individual"]["left"]


def test_a_model_to_compare_with_is_measured_on_every_task_and_not_fused(workspace):
    pool = {**workspace.config["modelpool"], "models": {"c": workspace.models["c"]}}
    config = workspace.write(modelpool={**pool, "baselines": {"multi_task": workspace.models["a"]}})
    done = workspace.fb("run", "-c", str(config), "-o", "out", "check_baselines=true", "--json")
    assert done.returncode == 0, done.stderr
    fused, single = (open_checkpoint(path) for path in (workspace.root / "out/model", workspace.models["c"]))
    assert all(torch.equal(fused.tensor(key), single.tensor(key)) for key in single)
    measured = json.loads(done.stdout)["fusionbench"]["baselines"]["multi_task"]
    assert set(measured) == {"left", "right"}
    alone = workspace.fb("evaluate", workspace.models["a"], "-t", str(write_tasks(workspace)), "--json")
    for task, result in json.loads(alone.stdout).items():
        if task in measured:
            assert measured[task]["samples_sha256"] == result["samples_sha256"]


@pytest.mark.parametrize("name", ["individual", "a"])
def test_a_model_to_compare_with_needs_a_name_of_its_own(workspace, name):
    pool = {**workspace.config["modelpool"], "baselines": {name: workspace.models["b"]}}
    done = workspace.fb("run", "-c", str(workspace.write(modelpool=pool)), "-o", "out")
    assert done.returncode == 2
    assert f"a baseline cannot be called '{name}'" in done.stderr
    assert f"modelpool.baselines.{name}" in done.stderr


def data_by_name(workspace):
    pool = {**workspace.config["modelpool"], "data": {"a": "left", "b": "right"}}
    return workspace.write(modelpool=pool)


def test_plan_reads_nothing_and_says_what_will_happen(workspace):
    done = workspace.fb("plan", "-c", str(workspace.write()), "--json")
    plan = json.loads(done.stdout)
    assert plan["merged_tensors"] == 4
    assert plan["write_bytes"] == 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert not (workspace.root / "runs").exists()


# --- what is wrong, where, why, what to do ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "facts"),
    [
        (["method=arithmetik"], 2, ["arithmetik", "did you mean", "arithmetic"]),
        (["method=arithmetic", "method.scaling_factor=9"], 2, ["method.scaling_factor", "9", "<= 2"]),
        (["method=arithmetic", "method.scalingfactor=1"], 2, ["method.scalingfactor", "scaling_factor"]),
        (["method=arithmetic", "modelpool.base=null"], 4, ["needs a base model", "modelpool.base"]),
        (["modelpool.models.a=./nowhere/at/all"], 5, ["nowhere/at/all"]),
        (["taskpool.tasks.left.task=blob"], 2, ["blob", "blobs"]),
        (["taskpool.tasks.left.samples=-1"], 2, ["taskpool.tasks.left", "samples", "-1"]),
        (["engine.memory_budget=lots"], 2, ["lots", "2GB"]),
        (["engine.dtype=float33"], 2, ["float33", "bfloat16"]),
        (["modelpol.base=null"], 2, ["modelpol", "modelpool"]),
        (["method=greedy"], 2, ["test data", "transductive"]),
        (["method=greedy", "taskpool=null"], 4, ["needs data", "task pool"]),
    ],
)
def test_mistakes_are_explained_with_a_documented_status(workspace, words, status, facts):
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out", *words)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1].strip()
    assert "Traceback" not in done.stderr
    for fact in facts:
        assert fact in done.stderr
    assert not (workspace.root / "out" / "model").exists()


def test_incompatible_models_are_found_before_weights_are_read(workspace):
    import toy

    wide = toy.make_models(workspace.root / "wide", 1, width=16)
    done = workspace.fb("run", "-c", str(workspace.write()), f"modelpool.models.a={wide['a']}")
    assert done.returncode == 4
    for fact in ("3 tensors differ", "0.weight: [8, 4] expected, [16, 4] in a", "2.weight"):
        assert fact in done.stderr


def test_a_truncated_checkpoint_is_named(workspace):
    path = workspace.root / "models/b/model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    done = workspace.fb("run", "-c", str(workspace.write()))
    assert done.returncode == 5
    assert str(path) in done.stderr


def test_nan_names_model_and_tensor(workspace):
    from fusionbench_core import write_safetensors

    state = {
        k: open_checkpoint(workspace.models["b"]).tensor(k).clone()
        for k in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    state["2.bias"][1] = float("nan")
    write_safetensors(workspace.root / "models/b/model.safetensors", state)
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out")
    assert done.returncode == 6
    assert "2.bias" in done.stderr
    assert "model    b" in done.stderr
    assert not (workspace.root / "out/model").exists()


def test_an_output_directory_that_exists_is_not_touched(workspace):
    (workspace.root / "out").mkdir()
    (workspace.root / "out/precious").write_text("keep me")
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out")
    assert done.returncode == 8
    assert "--resume" in done.stderr
    assert [path.name for path in (workspace.root / "out").iterdir()] == ["precious"]


def test_a_file_in_the_way_is_an_output_error(workspace):
    (workspace.root / "file").write_text("")
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "file/out")
    assert done.returncode == 8
    assert "output directory" in done.stderr


def test_results_of_other_tasks_survive_one_that_fails(workspace):
    tasks = {"task": "blobs", "tasks": {"left": {}, "bad": {"fail": True}, "right": {}}}
    done = workspace.fb("run", "-c", str(workspace.write(taskpool=tasks)), "-o", "out")
    assert done.returncode == 7
    assert "cannot be measured" in done.stderr
    report = json.loads((workspace.root / "out/report.json").read_text())
    assert report["fusionbench"]["status"] == "partial"
    assert {"left", "right"} <= set(report)
    assert "bad" not in report


def test_transductive_adaptation_is_in_the_report(workspace):
    done = workspace.fb(
        "run",
        "-c",
        str(workspace.write()),
        "-o",
        "out",
        "method=greedy",
        "taskpool.transductive=true",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["fusionbench"]
    assert report["transductive"] is True
    assert report["adaptation_data"] == {"left": {"test": 60}, "right": {"test": 60}}


# --- nothing is lost -------------------------------------------------------------------------------


def test_ctrl_c_leaves_no_half_model_and_resume_gives_the_same_bits(workspace):
    config = str(workspace.write())
    assert workspace.fb("run", "-c", config, "-o", "whole", "method=slow").returncode == 0
    words = ["run", "-c", config, "-o", "out", "method=slow", "method.pause=1.0", "engine.threads=1"]
    process = subprocess.Popen(
        workspace.command(*words), cwd=workspace.root, env=workspace.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = workspace.root / "out/.model.partial/journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count("tensor") >= 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert not (workspace.root / "out/model").exists()
    resumed = workspace.fb("run", "--resume", "out")
    assert resumed.returncode == 0, resumed.stderr
    assert same_model(workspace, "whole", "out")


def test_kill_9_then_resume_gives_the_same_bits(workspace):
    config = str(workspace.write())
    assert workspace.fb("run", "-c", config, "-o", "whole", "method=slow").returncode == 0
    words = ["run", "-c", config, "-o", "out", "method=slow", "method.pause=0.5", "engine.threads=1"]
    process = subprocess.Popen(
        workspace.command(*words), cwd=workspace.root, env=workspace.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = workspace.root / "out/.model.partial/journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count("tensor") >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not (workspace.root / "out/model").exists()
    started = time.monotonic()
    assert workspace.fb("run", "--resume", "out").returncode == 0
    assert time.monotonic() - started < 60
    assert same_model(workspace, "whole", "out")


def test_a_method_that_fails_can_be_resumed_when_it_is_mended(workspace):
    config = str(workspace.write(taskpool=None))
    assert workspace.fb("run", "-c", config, "-o", "whole", "method=slow").returncode == 0
    failed = workspace.fb("run", "-c", config, "-o", "out", "method=slow", env={"TOY_FAIL_AT": "2.weight"})
    assert failed.returncode == 6
    assert "2.weight" in failed.stderr
    assert "told to fail" in failed.stderr
    assert workspace.fb("run", "--resume", "out").returncode == 0
    assert same_model(workspace, "whole", "out")


def test_resuming_a_finished_run_does_nothing_twice(workspace):
    workspace.fb("run", "-c", str(workspace.write()), "-o", "out")
    before = (workspace.root / "out/model/model.safetensors").stat().st_mtime_ns
    again = workspace.fb("run", "--resume", "out")
    assert again.returncode == 0, again.stderr
    assert (workspace.root / "out/model/model.safetensors").stat().st_mtime_ns == before


def test_learning_can_only_be_finished_where_it_was_begun(workspace):
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out", "--finish")
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert not (workspace.root / "out").exists()


def test_a_method_that_learns_nothing_starts_from_nothing(workspace):
    done = workspace.fb("run", "-c", str(workspace.write()), "-o", "out", "method=mean", "learned_from=x")
    assert done.returncode == 2
    assert "learns nothing" in done.stderr
    assert not (workspace.root / "out").exists()


def test_resuming_something_else_says_so(workspace):
    done = workspace.fb("run", "--resume", ".")
    assert done.returncode == 5
    assert "no run directory" in done.stderr


def wait_for(condition, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def same_model(workspace, one: str, other: str) -> bool:
    paths = [workspace.root / name / "model/model.safetensors" for name in (one, other)]
    return paths[0].read_bytes() == paths[1].read_bytes()
