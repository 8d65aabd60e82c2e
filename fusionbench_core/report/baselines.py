"""What fused models are compared with: kinds of baselines, and the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable

BASELINES = ("pretrained", "individual", "multi_task")
"""The base before any fine-tuning, the expert of each task, and one model trained on all tasks at once."""


def in_order(kinds: Iterable[str]) -> list[str]:
    """Each kind once: those of `BASELINES` first and in their order, then others as they come.

    >>> in_order(["distilled", "individual", "pretrained", "individual"])
    ['pretrained', 'individual', 'distilled']
    """
    found = dict.fromkeys(kinds)
    return [
        *(kind for kind in BASELINES if kind in found),
        *(kind for kind in found if kind not in BASELINES),
    ]
