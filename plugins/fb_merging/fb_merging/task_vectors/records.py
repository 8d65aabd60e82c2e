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

TASK_VECTOR_MERGING = MethodRecord(
    name="task_vector_merging",
    target="fb_merging.task_vectors.task_vector_merging:TaskVectorMerging",
    summary="sparsify, combine and scale task vectors, each step free to choose",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", laws=TASK_VECTOR_LAWS),
    paper=TASK_ARITHMETIC.paper,
)

_DARE = Paper(
    title="Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
    authors="Yu et al.",
    year=2024,
    venue="ICML",
    arxiv="2311.03099",
)

DARE_LINEAR = MethodRecord(
    name="dare_linear",
    target="fb_merging.task_vectors.dare_linear:DareLinear",
    summary="drop entries of the task vectors at random, rescale the others, then task arithmetic",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", random=True, laws=TASK_VECTOR_LAWS),
    paper=_DARE,
)

DARE_SIMPLE_AVERAGE = MethodRecord(
    name="dare_simple_average",
    target="fb_merging.task_vectors.dare_simple_average:DareSimpleAverage",
    summary="drop entries of the task vectors at random, rescale the others, then average",
    tags=("average", "task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", random=True, laws=TASK_VECTOR_LAWS),
    paper=_DARE,
)

DARE_TIES = MethodRecord(
    name="dare_ties",
    target="fb_merging.task_vectors.dare_ties:DareTies",
    summary="drop entries of the task vectors at random, rescale the others, then TIES",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required", locality="element", surveys=2, random=True, laws=TASK_VECTOR_LAWS
    ),
    paper=_DARE,
)

_DELLA = Paper(
    title="DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
    authors="Deep et al.",
    year=2024,
    arxiv="2406.11617",
)

DELLA = MethodRecord(
    name="della",
    target="fb_merging.task_vectors.della:Della",
    summary="drop small entries more often than large ones, then merge what agrees with an elected sign",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="row", random=True, laws=TASK_VECTOR_LAWS),
    paper=_DELLA,
)

DELLA_LINEAR = MethodRecord(
    name="della_linear",
    target="fb_merging.task_vectors.della_linear:DellaLinear",
    summary="drop small entries more often than large ones, then task arithmetic",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="row", random=True, laws=TASK_VECTOR_LAWS),
    paper=_DELLA,
)

_BREADCRUMBS = Paper(
    title="Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
    authors="Davari and Belilovsky",
    year=2024,
    venue="ECCV",
    arxiv="2312.06795",
)

BREADCRUMBS = MethodRecord(
    name="breadcrumbs",
    target="fb_merging.task_vectors.breadcrumbs:Breadcrumbs",
    summary="drop the largest and the smallest entries of each tensor, then task arithmetic",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="tensor", laws=TASK_VECTOR_LAWS),
    paper=_BREADCRUMBS,
)

BREADCRUMBS_TIES = MethodRecord(
    name="breadcrumbs_ties",
    target="fb_merging.task_vectors.breadcrumbs_ties:BreadcrumbsTies",
    summary="drop the largest and the smallest entries of each tensor, then merge what agrees with a sign",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="tensor", laws=TASK_VECTOR_LAWS),
    paper=_BREADCRUMBS,
)

SCE = MethodRecord(
    name="sce",
    target="fb_merging.task_vectors.sce:Sce",
    summary="select entries that vary between the models, weigh models by energy, erase minority signs",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", min_models=2, locality="tensor", laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="FuseChat: Knowledge Fusion of Chat Models",
        authors="Wan et al.",
        year=2024,
        arxiv="2408.07990",
    ),
)

MAGMAX = MethodRecord(
    name="magmax",
    target="fb_merging.task_vectors.magmax:MagMax",
    summary="of each entry, the update of largest magnitude",
    tags=("task-vectors", "continual", "data-free"),
    capabilities=Capabilities(base="required", locality="element", laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="MagMax: Leveraging Model Merging for Seamless Continual Learning",
        authors="Marczak et al.",
        year=2024,
        venue="ECCV",
        arxiv="2407.06322",
    ),
)

ENTRIES = (
    TASK_ARITHMETIC,
    TASK_VECTOR_MERGING,
    TIES_MERGING,
    DARE_LINEAR,
    DARE_SIMPLE_AVERAGE,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    SCE,
    MAGMAX,
)
