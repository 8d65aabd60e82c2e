"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fb_merging.task_vectors.records import TASK_VECTOR_LAWS
from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

_TAGS = ("task-vectors", "spectral", "data-free")
_SPECTRAL = Capabilities(base="required", locality="tensor", laws=TASK_VECTOR_LAWS)

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
    capabilities=Capabilities(base="required", locality="tensor", laws=TASK_VECTOR_LAWS | {Law.SINGLE}),
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
    capabilities=_SPECTRAL,
    paper=_ISOTROPIC,
)

ISO_CTS = MethodRecord(
    name="iso_cts",
    target="fb_merging.spectral.iso_cts:IsoCts",
    summary="isotropic merging of the tasks' common directions and of each task's own",
    tags=_TAGS,
    capabilities=_SPECTRAL,
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
    capabilities=Capabilities(base="required", locality="tensor", laws=frozenset(Law)),
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
    capabilities=_SPECTRAL,
    paper=Paper(
        title="Model merging with SVD to tie the Knots",
        authors="Stoica et al.",
        year=2025,
        venue="ICLR",
        arxiv="2410.19735",
    ),
)

ENTRIES = (
    TSV_MERGING,
    ISO_C,
    ISO_CTS,
    WUDI_MERGING,
    ACTMERGE,
    KNOTS,
)
