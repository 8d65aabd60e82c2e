"""Records of this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import CommandRecord

ANALYSE = CommandRecord(
    name="analyse",
    target="fb_merging.analysis.command:analyse",
    summary="Compare the task vectors of a model pool: similarity, conflicts, magnitudes.",
)
