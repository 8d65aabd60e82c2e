"""The embedded benchmarks, from the cards beside the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _generate.text import ROOT, table

TEXT = ROOT / "plugins/fb_nlp_tasks/fb_nlp_tasks/embedded"
VISION = ROOT / "plugins/fb_clip_tasks/fb_clip_tasks/embedded"


def benchmarks() -> dict[str, str]:
    """Tables of the tasks, and what the vision trunk was pre-trained on."""
    pretraining = _read(VISION / "PRETRAINING.json")
    return {
        "text": _tasks(TEXT / "data"),
        "vision": _tasks(VISION / "data"),
        "pairs": f"{pretraining['pairs']:,}",
        "sources": table(
            ("source", "pairs"),
            [(name, f"{facts['pairs']:,}") for name, facts in pretraining["sources"].items()],
        ),
        "overlap": table(
            ("task", "training images among the pairs", "share of all pairs"),
            [
                (f"`{name}`", facts["pairs"], f"{100 * facts['share']:.2f} %")
                for name, facts in pretraining["task_images"].items()
            ],
        ),
        "note": pretraining["task_images_note"],
    }


def _tasks(directory: Path) -> str:
    cards = [_read(file) for file in sorted(directory.glob("*.json"))]
    return table(
        ("task", "what", "classes", "train / validation / test", "source", "licence"),
        [
            (
                f"`{card['name']}` (version {card['version']})",
                card["title"],
                len(card["labels"]),
                " / ".join(str(card["splits"][split]["n"]) for split in ("train", "validation", "test")),
                f"{card['source']} ({card['source_version']})",
                card["licence"],
            )
            for card in cards
        ],
    )


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
