"""The demo's table and picture, where a page has the markers for it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from _generate.text import ROOT
from fusionbench_core.report import Report, plain_table, read_report, summary_facts, summary_lines
from fusionbench_core.report.figures import result_figures

REPORT = ROOT / "docs/assets/demo.json"
"""`report.json` of `make demo`; without it the pages stay as they are."""

PAGES = ("README.md", "docs/index.md", "docs/tutorials/first_fusion.md")

_MARKS = re.compile(r"(<!-- demo:begin -->\n).*?(<!-- demo:end -->)", re.DOTALL)
_LABEL = "Accuracy of the base, the experts and the fused model on each task"


def take(file: Path) -> None:
    """Keep what a report says about the result, and nothing about the machine it was made on."""
    found = read_report(file)
    kept = ("tasks", "model_info", "status", "method", "taskpool", "seed", "baselines", "plugins")
    small = Report(**{name: getattr(found, name) for name in kept})
    REPORT.write_text(json.dumps(small.to_json(), indent=1) + "\n", encoding="utf-8")


def demo() -> dict[str, str]:
    """Path -> text of the pages that show the demo, and of its picture."""
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in PAGES}
    if not REPORT.is_file():
        return texts
    found = read_report(REPORT)
    facts = [
        f"{key}   {value}"
        for key, value in summary_facts(found)
        if key in ("normalised mean", "mean accuracy")
    ]
    shown = "\n".join(["```text", *plain_table(summary_lines(found)), "", *facts, "```"])

    def filled(path: str) -> str:
        picture = os.path.relpath(ROOT / "docs/assets/demo.svg", (ROOT / path).parent)
        inside = f"{shown}\n\n![{_LABEL}]({picture})\n"
        return _MARKS.sub(lambda marks: f"{marks[1]}{inside}{marks[2]}", texts[path], count=1)

    return {
        **{path: filled(path) for path in PAGES},
        "docs/assets/demo.svg": f"{result_figures(found)[0].svg}\n",
    }
