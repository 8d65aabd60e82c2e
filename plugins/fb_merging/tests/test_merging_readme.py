from __future__ import annotations

import re
from pathlib import Path

from fb_merging.plugin import ENTRIES

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


def test_every_method_is_in_the_table():
    names = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(names) == sorted(record.name for record in ENTRIES)
