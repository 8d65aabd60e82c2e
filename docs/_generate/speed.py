"""What `benchmarks/merge.py` measured: a table and a picture for each size of model."""

from __future__ import annotations

import json
from pathlib import Path

from _generate.text import ROOT, table

MEASURED = ROOT / "benchmarks/results"
PICTURES = "docs/assets/speed"


def speed() -> dict[str, str]:
    """The sections of the page."""
    return {"sections": "\n\n".join(map(_section, _files()))}


def pictures() -> dict[str, str]:
    """Path -> text of the pictures."""
    return {
        f"{PICTURES}/{file.stem}.svg": file.with_suffix(".svg").read_text(encoding="utf-8")
        for file in _files()
    }


def _files() -> list[Path]:
    return sorted(MEASURED.glob("merge-*.json"))


def _section(file: Path) -> str:
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        (
            method,
            row["what"],
            f"{row['times_limit']:.1f}",
            "" if row["times_fb_run"] is None else f"{row['times_fb_run']:.2f}",
            f"{row['wall_seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            "" if row["anonymous_bytes"] is None else f"{row['anonymous_bytes'] / 1e6:,.0f}",
        )
        for method, each in found["methods"].items()
        for row in each
    ]
    header = ("method", "what", "x limit", "x `fb run`", "seconds", "CPU seconds", "anonymous memory, MB")
    most = max(row["rounds"] for each in found["methods"].values() for row in each)
    rounds = "one round" if most == 1 else f"up to {most} rounds"
    kind = "CLIP vision models" if found["size"].startswith("clip") else "models"
    return "\n\n".join(
        [
            f"## {found['parameters'] / 1e9:.2f} billion parameters",
            f"A base and {found['models']} {kind} in {found['dtype']}, {found['bytes_a_model'] / 1e9:.2f} GB "
            f"each; {found['threads']} threads on {found['machine']['cpus']} processors; {rounds}.",
            table(header, rows),
            *(f"- {note}" for note in found["notes"]),
            f"![Time to merge, in multiples of the physical limit](../assets/speed/{file.stem}.svg)",
        ]
    )
