"""The README's example runs, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from fb_ensemble.records import ENTRIES

from fusionbench_core.registry import default_registry

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_example_prints_what_it_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    with torch.random.fork_rng(devices=[]):
        exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^# (.*)$", code, re.MULTILINE)


def test_every_method_is_in_the_table():
    names = re.findall(r"^\| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(names) == sorted(record.name for record in ENTRIES)


def test_every_parameter_is_in_its_methods_row():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", README.read_text(encoding="utf-8"), re.MULTILINE))
    registry = default_registry()
    for record in ENTRIES:
        parameters = registry.resolve(record).model_fields
        assert set(re.findall(r"`(\w+)`", rows[record.name].rpartition("| ")[2])) >= set(parameters), (
            record.name
        )
