"""Each trace that a method leaves is caught by its own check, and by no other."""

from __future__ import annotations

import ast
import logging
import sys

import faults_hygiene as faults
import faults_stateful
import faults_unsafe
import pytest
import torch
from kit import caught, results

from fusionbench_core.testing.method_checks.source_code import _unsafe, _written
from fusionbench_core.testing.method_checks.sources import calls
from fusionbench_core.testing.result import FAILING
from fusionbench_core.testing.sandbox import changed, global_state, no_network

FULL = ("FM-607",)
FAULTS = [
    (faults.ASKS, "FM-601"),
    (faults.SAVES, "FM-602"),
    (faults.REMEMBERS, "FM-602"),
    (faults.ELSEWHERE, "FM-602"),
    (faults.PRINTS, "FM-603"),
    (faults.SHOUTS, "FM-603"),
    (faults.LOGS, "FM-603"),
    (faults.SETS, "FM-604"),
    (faults.TUNES, "FM-604"),
    (faults.FINDS, "FM-604"),
    (faults.WARNS, "FM-605"),
    (faults.OUTDATED, "FM-605"),
    (faults_unsafe.UNPICKLES, "FM-606"),
    (faults_stateful.REMEMBERS, "FM-607"),
]


@pytest.fixture(autouse=True)
def _in_a_scratch_directory(tmp_path, monkeypatch):
    """What the faults leave behind is left there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_trace_is_caught_by_its_check(record, check):
    with no_network():
        assert caught(record, *FULL) == {check}


@pytest.mark.parametrize("record", [faults.SETS, faults.TUNES, faults.FINDS], ids=lambda each: each.target)
def test_what_a_method_set_is_set_back(record):
    before = global_state()
    assert [result.status for result in results(record, "full", ["FM-604"])] == ["failed"]
    assert changed(before, global_state()) == []


def test_a_method_without_traces_passes_and_the_checks_leave_none():
    before, handlers = global_state(), list(logging.root.handlers)
    only = [f"FM-60{number}" for number in range(1, 8)]
    found = results(faults.SOUND, "full", only)
    assert [result for result in found if result.status in FAILING] == []
    assert len(found) == 7
    assert changed(before, global_state()) == []
    assert logging.root.handlers == handlers


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load('x')",
        "from torch import load\nload('x', weights_only=False)",
        "import pickle as p\np.loads(data)",
        "from dill import load as read\nread(f)",
        "import joblib\njoblib.load('x')",
        "eval('1')",
        "exec('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "from transformers import AutoModel\nAutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_code_that_runs_data_is_found(code):
    assert any(_unsafe(name, call) for name, call in calls(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load('x', weights_only=True)",
        "model.eval()",
        "import pickle\npickle.dumps(x)",
        "import numpy as np\nnp.load('x')",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)\nyaml.safe_load(text)",
        "AutoModel.from_pretrained('x', trust_remote_code=False)",
        "def load(x): ...\nload('x')",
    ],
)
def test_code_that_only_looks_like_it_is_left_alone(code):
    assert not any(_unsafe(name, call) for name, call in calls(ast.parse(code)))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("KEPT = {}\ndef f(k, v):\n    KEPT[k] = v", "KEPT"),
        ("KEPT = []\ndef f(v):\n    KEPT.append(v)", "KEPT"),
        ("count = 0\ndef f():\n    global count\n    count += 1", "count"),
        ("class M:\n    kept: dict = {}\n    def f(self, k, v):\n        self.kept[k] = v", "self.kept"),
        ("from collections import defaultdict\nK = defaultdict(int)\ndef f(k):\n    K[k] += 1", "K"),
    ],
)
def test_state_that_outlives_a_call_is_found(code, name):
    assert [each for each, _ in _written(ast.parse(code))] == [name]


@pytest.mark.parametrize(
    "code",
    [
        "TABLE = {'a': 1}\ndef f(k):\n    return TABLE[k]",
        "TABLE = {}\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n@register\ndef g(): ...",
        "TABLE = {}\ndef fill():\n    TABLE['a'] = 1\nfill()",
        "KEPT = []\ndef f():\n    KEPT = []\n    KEPT.append(1)",
    ],
)
def test_tables_that_are_filled_at_import_are_left_alone(code):
    assert list(_written(ast.parse(code))) == []
