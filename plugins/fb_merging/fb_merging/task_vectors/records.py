"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

TASK_VECTOR_LAWS = frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE})
"""What holds for every sum of task vectors that does not look at their size."""

TASK_ARITHMETIC = MethodRecord(
    name="task_arithmetic",
    target="fb_merging.task_vectors.task_arithmetic:TaskArithmetic",
    summary="the base plus the scaled sum of all task vectors",
    tags=("task-vectors", "data-free"),
    capabilities=Capabilities(base="required", locality="element", laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="Editing Models with Task Arithmetic",
        authors="Ilharco et al.",
        year=2023,
        venue="ICLR",
        arxiv="2212.04089",
    ),
)

TIES_MERGING = MethodRecord(
    name="ties_merging",
    target="fb_merging.task_vectors.ties_merging:TiesMerging",
    summary="trim small updates, elect a sign for each entry, merge the updates that agree with it",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", surveys=2, laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="TIES-Merging: Resolving Interference When Merging Models",
        authors="Yadav et al.",
        year=2023,
        venue="NeurIPS",
        arxiv="2306.01708",
    ),
)

ENTRIES = (
    TASK_ARITHMETIC,
    TIES_MERGING,
)
