"""Mixtures and ensembles of the embedded experts load back in a fresh process, and measure the same."""

from __future__ import annotations

import json
import os

import pytest
from warm import WarmPython


@pytest.fixture(scope="module")
def fb():
    """`fb WORDS --json` in a fresh process, in a directory: what it prints."""
    python = WarmPython("torch", "transformers.modeling_utils", "transformers.conversion_mapping")

    def run(directory, *words: str) -> dict:
        done = python.fb(*words, "--json", cwd=directory, env=os.environ, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield run
    python.close()


@pytest.mark.parametrize("method", ["mixing/smile_upscaling", "ensemble/simple_ensemble"])
@pytest.mark.parametrize(("benchmark", "task"), [("embedded_text", "spam"), ("embedded_vision", "digits")])
def test_an_artefact_measures_in_a_fresh_process_what_the_run_measured(fb, tmp_path, benchmark, task, method):
    words = ["run", "--config-name", benchmark, f"method={method}", "taskpool.limit=6", "-o", "out"]
    report = fb(tmp_path, *words)
    again = fb(tmp_path, "evaluate", "out/model", "-t", benchmark, "--limit", "6", "--task", task)
    assert again[task]["samples_sha256"] == report[task]["samples_sha256"]
    assert again[task]["loss"] == pytest.approx(report[task]["loss"], rel=1e-5)
    assert {"pretrained", "individual"}.isdisjoint(report["fusionbench"]["baselines"])
