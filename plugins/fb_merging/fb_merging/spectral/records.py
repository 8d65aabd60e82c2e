"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

import dataclasses

from fb_merging.task_vectors.records import TASK_VECTOR_LAWS
from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

_TAGS = ("task-vectors", "spectral", "data-free")
_SPECTRAL = Capabilities(base="required", locality="tensor", laws=TASK_VECTOR_LAWS)

LEAST_INTERFERENCE_SCRATCH = (13, 14)
"""Of the factorisation of all task matrices on top of each other."""

_ISOTROPIC = Paper(
    title="No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
    authors="Marczak et al.",
    year=2025,
    venue="ICML",
    arxiv="2502.04959",
)

TSV_MERGING = MethodRecord(
    name="tsv_merging",
    target="fb_merging.spectral.tsv_merging:TsvMerging",
    summary="keep the leading singular vectors of each task, made orthogonal across tasks",
    tags=_TAGS,
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(2, 24),
        device="any",
        laws=TASK_VECTOR_LAWS | {Law.SINGLE},
    ),
    paper=Paper(
        title="Task Singular Vectors: Reducing Task Interference in Model Merging",
        authors="Gargiulo et al.",
        year=2025,
        venue="CVPR",
        arxiv="2412.00081",
    ),
)

ISO_C = MethodRecord(
    name="iso_c",
    target="fb_merging.spectral.iso_c:IsoC",
    summary="the sum of all task matrices, with all its singular values made equal",
    tags=_TAGS,
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(1, 19), device="any"),
    paper=_ISOTROPIC,
)

ISO_CTS = MethodRecord(
    name="iso_cts",
    target="fb_merging.spectral.iso_cts:IsoCts",
    summary="isotropic merging of the tasks' common directions and of each task's own",
    tags=_TAGS,
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(1, 26), device="any"),
    paper=_ISOTROPIC,
)

WUDI_MERGING = MethodRecord(
    name="wudi_merging",
    target="fb_merging.spectral.wudi_merging:WudiMerging",
    summary="the task matrix that interferes least with all tasks, found by descent or in closed form",
    tags=_TAGS,
    # Not SCALE: Adam steps by its learning rate, whatever the weights' size.
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(2, 15),
        laws=frozenset({Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION}),
    ),
    paper=Paper(
        title=(
            "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors"
        ),
        authors="Cheng et al.",
        year=2025,
        venue="ICML",
        arxiv="2503.08099",
    ),
)

ACTMERGE = MethodRecord(
    name="actmerge",
    target="fb_merging.spectral.actmerge:ActMerge",
    summary="the least-squares fit to all models' outputs, inputs guessed from the task matrices",
    tags=_TAGS,
    capabilities=Capabilities(
        base="required", locality="tensor", scratch=LEAST_INTERFERENCE_SCRATCH, laws=frozenset(Law)
    ),
    paper=Paper(
        title="Model Merging via Data-Free Covariance Estimation",
        authors="Hameed et al.",
        year=2026,
        arxiv="2604.01329",
    ),
)

KNOTS = MethodRecord(
    name="knots",
    target="fb_merging.spectral.knots:Knots",
    summary="rotate all task matrices into one basis, merge them there by TIES",
    tags=(*_TAGS, "sparse", "lora"),
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(14, 14)),
    paper=Paper(
        title="Model merging with SVD to tie the Knots",
        authors="Stoica et al.",
        year=2025,
        venue="ICLR",
        arxiv="2410.19735",
    ),
)

CART = MethodRecord(
    name="cart",
    target="fb_merging.spectral.cart:Cart",
    summary="the average, plus the main directions of what leads from it to each model",
    tags=("average", "spectral", "data-free"),
    capabilities=Capabilities(base="optional", locality="tensor", scratch=(1, 22), laws=frozenset(Law)),
    paper=Paper(
        title="Revisiting Weight Averaging for Model Merging",
        authors="Choi et al.",
        year=2024,
        arxiv="2412.12153",
    ),
)

STAR = MethodRecord(
    name="star",
    target="fb_merging.spectral.star:Star",
    summary="cut each task matrix to its main directions, stretched to keep its nuclear norm, and average",
    tags=_TAGS,
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(4, 17)),
    paper=Paper(
        title="STAR: Spectral Truncation and Rescale for Model Merging",
        authors="Lee et al.",
        year=2025,
        venue="NAACL",
        arxiv="2502.10339",
    ),
)

CORE_SPACE = MethodRecord(
    name="core_space",
    target="fb_merging.spectral.core_space:CoreSpace",
    summary="merge updates of low rank within the small space that they span together",
    tags=(*_TAGS, "lora"),
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(13, 22)),
    paper=Paper(
        title="Accurate and Efficient Low-Rank Model Merging in Core Space",
        authors="Panariello et al.",
        year=2025,
        venue="NeurIPS",
        arxiv="2509.17786",
    ),
)

ACE_MERGING = MethodRecord(
    name="ace_merging",
    target="fb_merging.spectral.ace_merging:AceMerging",
    summary="RegMean with covariances estimated from the task matrices, normalised if tasks are unlike",
    tags=_TAGS,
    # Not SCALE: the ridge and the test of unlikeness look at the size of the weights.
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(8, 16),
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION}),
    ),
    paper=Paper(
        title="ACE-Merging: Data-Free Model Merging with Adaptive Covariance Estimation",
        authors="Xu et al.",
        year=2026,
        venue="CVPR",
        arxiv="2603.02945",
    ),
)

DC_MERGE = MethodRecord(
    name="dc_merge",
    target="fb_merging.spectral.dc_merge:DcMerge",
    summary="TIES in a basis that covers the leading singular vectors of all tasks",
    tags=(*_TAGS, "sparse", "lora"),
    capabilities=dataclasses.replace(_SPECTRAL, scratch=(5, 22)),
    paper=Paper(
        title="DC-Merge: Improving Model Merging with Directional Consistency",
        authors="Zhang et al.",
        year=2026,
        venue="CVPR",
        arxiv="2603.06242",
    ),
)

ORTHOMERGE = MethodRecord(
    name="orthomerge",
    target="fb_merging.spectral.orthomerge:OrthoMerge",
    summary="merge the rotations of the base's weights as rotations, the rest by task arithmetic",
    tags=_TAGS,
    # Not TRANSLATION: weights are rotated, not moved.
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(3, 27),
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.SCALE}),
    ),
    paper=Paper(title="Orthogonal Model Merging", authors="Yang et al.", year=2026, arxiv="2602.05943"),
)

ENTRIES = (
    TSV_MERGING,
    ISO_C,
    ISO_CTS,
    WUDI_MERGING,
    ACTMERGE,
    ACE_MERGING,
    CART,
    STAR,
    KNOTS,
    CORE_SPACE,
    DC_MERGE,
    ORTHOMERGE,
)
