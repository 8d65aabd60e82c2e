"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

EMR_MERGING = MethodRecord(
    name="emr_merging",
    target="fb_merging.conditioned.emr_merging:EmrMerging",
    summary="one elected task vector, and a mask and a rescaler for each task",
    tags=("task-vectors", "task-conditioned", "compression", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        output="conditioned",
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="EMR-Merging: Tuning-Free High-Performance Model Merging",
        authors="Huang et al.",
        year=2024,
        venue="NeurIPS",
        arxiv="2405.17461",
    ),
)

TALL_MASK = MethodRecord(
    name="tall_mask",
    target="fb_merging.conditioned.tall_mask:TallMask",
    summary="the sum of all task vectors, and a mask for each task of the entries it uses",
    tags=("task-vectors", "task-conditioned", "compression", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        output="conditioned",
        laws=frozenset({Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Localizing Task Information for Improved Model Merging and Compression",
        authors="Wang et al.",
        year=2024,
        venue="ICML",
        arxiv="2405.07813",
    ),
)

MASKED_TASKS = BuilderRecord(
    name="masked_tasks",
    target="fb_merging.conditioned.masked_tasks:build_masked_tasks",
    summary="a base, one task vector, and a mask and a rescaler for each task",
)

ENTRIES: tuple[MethodRecord, ...] = (EMR_MERGING, TALL_MASK)
