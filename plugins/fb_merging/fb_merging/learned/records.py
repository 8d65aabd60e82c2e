"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

ADAMERGING = MethodRecord(
    name="adamerging",
    target="fb_merging.learned.adamerging:AdaMerging",
    summary="learn how much of each task vector to add, by making predictions on unlabelled data certain",
    tags=("task-vectors", "data", "learned"),
    # Not PERMUTATION: Adam divides by tiny gradients, which amplifies the rounding of another order.
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "logits"),
        trains=True,
        random=True,
        laws=frozenset({Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="AdaMerging: Adaptive Model Merging for Multi-Task Learning",
        authors="Yang et al.",
        year=2024,
        venue="ICLR",
        arxiv="2310.02575",
    ),
)

ENTRIES = (ADAMERGING,)
