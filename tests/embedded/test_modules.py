"""Mixtures and ensembles of the embedded experts load back in a fresh process, and measure the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MAIN = "from fusionbench_core.cli import main; main()"


def fb(directory, *words: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words, "--json"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", ["mixing/smile_upscaling", "ensemble/simple_ensemble"])
@pytest.mark.parametrize(("benchmark", "task"), [("embedded_text", "spam"), ("embedded_vision", "digits")])
def test_an_artefact_measures_in_a_fresh_process_what_the_run_measured(tmp_path, benchmark, task, method):
    words = ["run", "--config-name", benchmark, f"method={method}", "taskpool.limit=6", "-o", "out"]
    report = fb(tmp_path, *words)
    again = fb(tmp_path, "evaluate", "out/model", "-t", benchmark, "--limit", "6", "--task", task)
    assert again[task]["samples_sha256"] == report[task]["samples_sha256"]
    assert again[task]["loss"] == pytest.approx(report[task]["loss"], rel=1e-5)
    assert {"pretrained", "individual"}.isdisjoint(report["fusionbench"]["baselines"])
