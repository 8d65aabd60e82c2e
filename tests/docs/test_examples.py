"""The examples run, and the pages show them as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from pages import ROOT, blocks

from fusionbench_core import ConfigError, fuse
from fusionbench_core.config import RunConfig, compose
from fusionbench_core.registry import default_registry
from fusionbench_core.run import prepare

EXAMPLES = ROOT / "examples"


def test_the_quick_start_prints_three_fused_tensors():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.splitlines() == [
        "[[2.0, 0.5], [-0.25, -1.0]]",
        "[[2.0, 0.5], [-0.25, -1.0]]",
        "[[2.0, 1.0], [-1.0, -2.0]]",
    ]


@pytest.fixture
def trimmed_mean(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    from my_method import TrimmedMean

    return TrimmedMean


def test_the_trimmed_mean_leaves_out_the_outermost_updates(trimmed_mean):
    base = torch.tensor([1.0, -2.0, 0.5])
    deltas = torch.tensor([[1.0, 9.0, 0.0], [2.0, -1.0, 0.25], [-7.0, 1.0, 0.5], [3.0, 2.0, 90.0]])
    models = {str(i): {"w": base + delta} for i, delta in enumerate(deltas)}
    merged = fuse(trimmed_mean(trim=1, scaling_factor=0.5), models, {"w": base})["w"]
    middle = [[1.0, 2.0], [1.0, 2.0], [0.25, 0.5]]
    expected = [b + 0.5 * sum(pair) / 2 for b, pair in zip(base.tolist(), middle)]
    assert merged.tolist() == pytest.approx(expected)


def test_the_trimmed_mean_says_when_it_trims_everything(trimmed_mean):
    with pytest.raises(ConfigError, match="leaves nothing of 4 models"):
        fuse(trimmed_mean(trim=2), [{"w": torch.ones(1)}] * 4, {"w": torch.ones(1)})


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/write_a_method.md"])
def test_the_page_shows_the_whole_example(page):
    text = (EXAMPLES / "my_method.py").read_text(encoding="utf-8")
    assert text in [block.text for block in blocks(ROOT / page)]


def test_every_python_block_of_the_readme_runs(monkeypatch):
    code = [block.text for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert len(code) == 2
    exec(compile(code[0], "README.md", "exec"), {})


def test_the_example_config_is_valid():
    composed = compose([], EXAMPLES / "configs", "mine")
    prepared = prepare(RunConfig.model_validate(composed.values), default_registry())
    assert prepared.record.full_name == "merging/task_arithmetic"
    assert prepared.pool.names == ("spam", "wordnet")
    assert list(prepared.tasks.tasks) == ["spam", "wordnet"]


def test_the_tutorial_and_the_package_have_the_same_method():
    """The class of the one-file variant and that of the package differ in annotations only."""
    shown = {block.title: block.text for block in blocks(ROOT / "docs/tutorials/write_a_method.md")}
    one, package = shown["my_method.py"], shown["fb-trimmed/fb_trimmed/trimmed_mean.py"]
    assert _body(one) == _body(package)


def _body(text: str) -> str:
    body = text.partition("class TrimmedMean(TensorMethod):\n")[2]
    return re.sub(r"(: Sequence\[str\]|: TensorGroup| -> None| -> Tensor)", "", body)
