"""`tune`: every candidate is measured on the validation splits, by the metric that the tasks have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import toy
from safetensors.torch import load_file

GRID = [0.1, 0.5, 1.0, 2.0]

ODD = """
from dataclasses import replace

import toy
from fusionbench_core import hookimpl, implements
from fusionbench_core.records import TaskRecord

F1 = TaskRecord(name="f1_only", target="odd:F1Only", summary="no accuracy, no loss", metrics=("f1",))


@hookimpl
def fb_tasks():
    return [F1]


@implements(F1)
class F1Only(toy.Blobs):
    def evaluate(self, model, context):
        return replace(super().evaluate(model, context), metrics={"f1": 0.5}, intervals={})
"""


def accuracy(models: dict[str, str], factor: float, shift: float) -> float:
    """On the validation split, in float64."""
    base, *others = (load_file(Path(path, "model.safetensors")) for path in models.values())
    state = {
        key: base[key].double() + factor * sum(other[key].double() - base[key] for other in others)
        for key in base
    }
    (batch,) = toy.Blobs(name="it", shift=shift).batches("validation", labelled=True)
    hidden = (batch.inputs["x"].double() @ state["0.weight"].T + state["0.bias"]).relu()
    found = (hidden @ state["2.weight"].T + state["2.bias"]).argmax(-1)
    return float((found == batch.labels).double().mean())


def test_the_best_mean_accuracy_on_the_validation_splits_wins(workspace):
    config = workspace.write(method={"name": "arithmetic"}, tune={"scaling_factor": GRID})
    done = workspace.fb("run", "-c", str(config), "-o", "out")
    assert done.returncode == 0, done.stderr
    expected = [
        (accuracy(workspace.models, factor, 0.0) + accuracy(workspace.models, factor, 1.0)) / 2
        for factor in GRID
    ]
    report = json.loads(Path(workspace.root, "out/report.json").read_text())["fusionbench"]
    assert report["details"]["tuning"]["series"]["mean of all tasks"] == pytest.approx(expected)
    best = GRID[expected.index(max(expected))]
    assert len(set(expected)) > 1
    assert report["method"]["parameters"]["scaling_factor"] == best


def test_tasks_without_a_metric_in_common_cannot_be_tuned_for(workspace):
    (workspace.root / "odd.py").write_text(ODD)
    tasks = {"task": "f1_only", "tasks": {"left": {}}}
    config = workspace.write(method={"name": "arithmetic"}, tune={"scaling_factor": GRID}, taskpool=tasks)
    path = os.pathsep.join([workspace.environment()["PYTHONPATH"], str(workspace.root)])
    done = workspace.fb("--plugin", "odd.py", "run", "-c", str(config), "-o", "out", env={"PYTHONPATH": path})
    assert done.returncode == 4, done.stderr
    assert "left has f1" in done.stderr
    assert "accuracy, loss" in done.stderr
