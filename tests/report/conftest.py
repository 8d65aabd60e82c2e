"""A report of a small run, numbers easy to check by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fusionbench_core.report import Report, curve, matrix


def made(**changes: Any) -> Report:
    """Two tasks: accuracies 0.6 and 0.9, experts 0.8 and 1.0, pre-trained 0.3 and 0.5."""
    facts: dict[str, Any] = {
        "tasks": {
            "cars": {
                "task": "cars",
                "accuracy": 0.6,
                "loss": 1.0,
                "n": 50,
                "split": "test",
                "intervals": {"accuracy": [0.5, 0.7]},
                "seconds": 0.5,
                "fingerprint": "f1",
                "samples_sha256": "ab",
            },
            "mnist": {
                "task": "mnist",
                "accuracy": 0.9,
                "loss": 0.5,
                "n": 50,
                "split": "test",
                "intervals": {"accuracy": (0.8, 1.0)},
                "seconds": 0.5,
                "fingerprint": "f2",
                "samples_sha256": "cd",
            },
        },
        "model_info": {"trainable_params": 30, "all_params": 40},
        "name": "first",
        "command": ["fb", "run", "method=ties_merging"],
        "method": {
            "name": "merging/ties_merging",
            "parameters": {"density": 0.2},
            "distribution": "fb-merging",
            "version": "1.0.0",
            "summary": "Trim, elect, average.",
            "formula": r"\theta = \theta_0 + \lambda \tau",
            "paper": {"authors": "Yadav et al.", "title": "TIES", "year": 2023, "arxiv": "2306.01708"},
        },
        "modelpool": {
            "base": {"reference": "hub/base", "fingerprint": "00"},
            "models": {
                "cars": {"reference": "hub/cars", "fingerprint": "01"},
                "mnist": {"reference": "hub/mnist"},
            },
        },
        "taskpool": {"split": "test", "cards": {"cars": {"source": "here", "licence": "MIT", "version": 1}}},
        "seed": 7,
        "baselines": {
            "pretrained": {"cars": {"accuracy": 0.3}, "mnist": {"accuracy": 0.5}},
            "individual": {"cars": {"accuracy": 0.8, "recorded": True}, "mnist": {"accuracy": 1.0}},
        },
        "artefact": {"path": "runs/first/model", "content_hash": "sha256:" + "9f" * 32, "bytes": 1200},
        "timings": {"fuse": 1.5, "evaluate": 2.0},
        "environment": {"python": "3.11.0", "platform": "Linux", "packages": {"torch": "2.5.1"}},
        "plugins": [
            {"namespace": "merging", "distribution": "fb-merging", "version": "1.0.0", "status": "ok"}
        ],
        "warnings": ["one thing"],
        "details": {
            "loss": curve({"cars": [3.0, 2.0, float("nan"), 1.0]}, title="Loss curve"),
            "coefficients": matrix([[0.1, 0.2]], rows=["layer"], columns=["cars", "mnist"]),
            "temperature": 0.1,
        },
        "config": {"method": {"name": "ties_merging"}},
    }
    return Report(**{**facts, **changes})


@pytest.fixture
def report() -> Report:
    return made()


@pytest.fixture
def make():
    return made
