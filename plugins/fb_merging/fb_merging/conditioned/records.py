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

RANDES = MethodRecord(
    name="randes",
    target="fb_merging.conditioned.randes:RanDeS",
    summary="the sum of all task vectors under random signs, by which each is found again",
    tags=("task-vectors", "task-conditioned", "compression", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        output="conditioned",
        random=True,
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="RanDeS: Randomized Delta Superposition for Multi-Model Compression",
        authors="Zhou et al.",
        year=2025,
        arxiv="2505.11204",
    ),
)

PACKED_BITDELTA = MethodRecord(
    name="packed_bitdelta",
    target="fb_merging.conditioned.packed_bitdelta:PackedBitDelta",
    summary="the signs of each task's matrices, packed to bits, and a number a matrix",
    tags=("task-vectors", "task-conditioned", "compression", "quantisation", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        output="conditioned",
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="BitDelta: Your Fine-Tune May Only Be Worth One Bit",
        authors="Liu et al.",
        year=2024,
        venue="NeurIPS",
        arxiv="2402.10193",
    ),
)

MASKED_TASKS = BuilderRecord(
    name="masked_tasks",
    target="fb_merging.conditioned.masked_tasks:build_masked_tasks",
    summary="a base, one task vector, and a mask and a rescaler for each task",
)

SUPERPOSED_TASKS = BuilderRecord(
    name="superposed_tasks",
    target="fb_merging.conditioned.superposed_tasks:build_superposed_tasks",
    summary="a base, one superposition of task vectors, and a seed of signs for each task",
)

SIGNED_TASKS = BuilderRecord(
    name="signed_tasks",
    target="fb_merging.conditioned.signed_tasks:build_signed_tasks",
    summary="a base, and packed signs, scales and other tensors for each task",
)

BUILDERS = (MASKED_TASKS, SUPERPOSED_TASKS, SIGNED_TASKS)

ENTRIES: tuple[MethodRecord, ...] = (EMR_MERGING, TALL_MASK, RANDES, PACKED_BITDELTA)
