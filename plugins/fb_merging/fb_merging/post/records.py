"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fb_merging.task_vectors.records import TASK_ARITHMETIC, TASK_VECTOR_LAWS
from fusionbench_core.records import Capabilities, MethodRecord, Paper

SCALED = MethodRecord(
    name="scaled",
    target="fb_merging.post.scaled:Scaled",
    summary="scale what another method merged, by depth and by names of tensors",
    tags=("post", "task-vectors", "data-free"),
    capabilities=Capabilities(base="required", locality="element", scratch=(2, 8), laws=TASK_VECTOR_LAWS),
    paper=TASK_ARITHMETIC.paper,
)

LINES = MethodRecord(
    name="lines",
    target="fb_merging.post.lines:Lines",
    summary="scale what another method merged, linearly from the first layer to the last",
    tags=("post", "task-vectors", "data-free"),
    capabilities=Capabilities(
        base="required", locality="element", scratch=(2, 8), surveys=1, laws=TASK_VECTOR_LAWS
    ),
    paper=Paper(
        title="LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging",
        authors="Wang et al.",
        year=2025,
        venue="ICLR",
        arxiv="2410.17146",
    ),
)

SUBSPACE_BOOSTING = MethodRecord(
    name="subspace_boosting",
    target="fb_merging.post.subspace_boosting:SubspaceBoosting",
    summary="raise the small singular values of what another method merged",
    tags=("post", "task-vectors", "spectral", "data-free"),
    capabilities=Capabilities(base="required", locality="tensor", scratch=(2, 25), laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="Subspace-Boosted Model Merging",
        authors="Skorobogat et al.",
        year=2025,
        arxiv="2506.16506",
    ),
)

SINGULAR_VALUE_CALIBRATION = MethodRecord(
    name="singular_value_calibration",
    target="fb_merging.post.singular_value_calibration:SingularValueCalibration",
    summary="scale singular values of what another method merged, down where the tasks overlap",
    tags=("post", "task-vectors", "spectral", "data-free"),
    capabilities=Capabilities(base="required", locality="tensor", scratch=(5, 25), laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="When Shared Knowledge Hurts: Spectral Over-Accumulation in Model Merging",
        authors="Li et al.",
        year=2026,
        venue="ICML",
        arxiv="2602.05536",
    ),
)

ENTRIES: tuple[MethodRecord, ...] = (SCALED, LINES, SUBSPACE_BOOSTING, SINGULAR_VALUE_CALIBRATION)
