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

ENTRIES = (
    TSV_MERGING,
    ISO_C,
    ISO_CTS,
)
