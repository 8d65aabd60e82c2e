"""The embedded benchmarks, from the cards beside the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from _generate.text import ROOT, table
from fusionbench_core.report.baselines import in_order

TEXT = ROOT / "plugins/fb_nlp_tasks/fb_nlp_tasks/embedded"
VISION = ROOT / "plugins/fb_clip_tasks/fb_clip_tasks/embedded"


def benchmarks() -> dict[str, str]:
    """Tables of the tasks, and what the vision trunk was pre-trained on."""
    pretraining = _read(VISION / "PRETRAINING.json")
    return {
        "text": _tasks(TEXT),
        "text_results": _baselines(TEXT, "embedded_text"),
        "text_training": _settings(_read(TEXT / "MANIFEST.json")["protocol"]["training"]),
        "vision": _tasks(VISION),
        "vision_results": _baselines(VISION, "embedded_vision"),
        "vision_training": _settings(_read(VISION / "MANIFEST.json")["fine_tuning"]),
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


def _settings(facts: dict[str, Any]) -> str:
    return table(("setting", "value"), [(name.replace("_", " "), value) for name, value in facts.items()])


def _baselines(embedded: Path, preset: str) -> str:
    """Accuracies that the task pool's preset records."""
    recorded = recorded_baselines(embedded, preset)
    if not recorded:
        return "The preset records none yet; `fb run check_baselines=true` measures them."
    kinds = in_order(recorded)
    rows = [
        (f"`{task}`", *(f"{100 * recorded[kind][task]['accuracy']:.1f}" for kind in kinds))
        for task in recorded[kinds[0]]
    ]
    return table(("task", *kinds), rows)


def recorded_baselines(embedded: Path, preset: str) -> dict[str, dict[str, dict[str, float]]]:
    """What the task pool's preset records: kind -> task -> metrics."""
    file = embedded.parent / f"configs/taskpool/{preset}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")).get("baselines") or {}


def _tasks(embedded: Path) -> str:
    cards = [_read(file) for file in sorted((embedded / "data").glob("*.json"))]
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
