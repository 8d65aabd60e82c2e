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
    capabilities=Capabilities(base="required", locality="tensor", scratch=(2, 7), laws=TASK_VECTOR_LAWS),
    paper=_BREADCRUMBS,
)

BREADCRUMBS_TIES = MethodRecord(
    name="breadcrumbs_ties",
    target="fb_merging.task_vectors.breadcrumbs_ties:BreadcrumbsTies",
    summary="drop the largest and the smallest entries of each tensor, then merge what agrees with a sign",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="tensor", scratch=(2, 9), laws=TASK_VECTOR_LAWS),
    paper=_BREADCRUMBS,
)

SCE = MethodRecord(
    name="sce",
    target="fb_merging.task_vectors.sce:Sce",
    summary="select entries that vary between the models, weigh models by energy, erase minority signs",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required", min_models=2, locality="tensor", scratch=(3, 9), laws=TASK_VECTOR_LAWS
    ),
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

_TALL_MASKS = Paper(
    title="Localizing Task Information for Improved Model Merging and Compression",
    authors="Wang et al.",
    year=2024,
    venue="ICML",
    arxiv="2405.07813",
)

CONSENSUS_TA = MethodRecord(
    name="consensus_ta",
    target="fb_merging.task_vectors.consensus_ta:ConsensusTa",
    summary="task arithmetic without the entries that fewer than two tasks use",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", min_models=2, locality="element", laws=TASK_VECTOR_LAWS),
    paper=_TALL_MASKS,
)

CONSENSUS_TIES = MethodRecord(
    name="consensus_ties",
    target="fb_merging.task_vectors.consensus_ties:ConsensusTies",
    summary="TIES without the entries that fewer than two tasks use",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required", min_models=2, locality="element", surveys=2, laws=TASK_VECTOR_LAWS
    ),
    paper=_TALL_MASKS,
)

_RAM = Paper(
    title="Behavior Knowledge Merge in Reinforced Agentic Models",
    authors="Yuan et al.",
    year=2026,
    arxiv="2601.13572",
)

RAM = MethodRecord(
    name="ram",
    target="fb_merging.task_vectors.ram:Ram",
    summary="average updates that several models made, keep those that one model made",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", laws=TASK_VECTOR_LAWS - {Law.SCALE}),
    paper=_RAM,
)

RAMPLUS = MethodRecord(
    name="ramplus",
    target="fb_merging.task_vectors.ramplus:RamPlus",
    summary="average updates that several models made, amplify those that one model made",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required", locality="element", surveys=1, laws=TASK_VECTOR_LAWS - {Law.SCALE}
    ),
    paper=_RAM,
)

METAGPT = MethodRecord(
    name="metagpt",
    target="fb_merging.task_vectors.metagpt:MetaGpt",
    summary="task arithmetic, each task vector weighed by its share of the squared lengths",
    tags=("task-vectors", "data-free"),
    capabilities=Capabilities(
        base="required", locality="element", surveys=1, laws=TASK_VECTOR_LAWS | {Law.IDENTICAL, Law.SINGLE}
    ),
    paper=Paper(
        title="MetaGPT: Merging Large Language Models Using Model Exclusive Task Arithmetic",
        authors="Zhou et al.",
        year=2024,
        venue="EMNLP",
        arxiv="2406.11385",
    ),
)

LOCALIZE_AND_STITCH = MethodRecord(
    name="localize_and_stitch",
    target="fb_merging.task_vectors.localize_and_stitch:LocalizeAndStitch",
    summary="keep the few largest updates of each model, and average where they overlap",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", surveys=2, laws=TASK_VECTOR_LAWS),
    paper=Paper(
        title="Localize-and-Stitch: Efficient Model Merging via Sparse Task Arithmetic",
        authors="He et al.",
        year=2025,
        venue="TMLR",
        arxiv="2408.13656",
    ),
)

CABS = MethodRecord(
    name="cabs",
    target="fb_merging.task_vectors.cabs:Cabs",
    summary="keep the n largest of every m consecutive updates, one model after the other, none twice",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(2, 9),
        ordered=True,
        laws=TASK_VECTOR_LAWS - {Law.PERMUTATION},
    ),
    paper=Paper(
        title="CABS: Conflict-Aware and Balanced Sparsification for Enhancing Model Merging",
        authors="Yang et al.",
        year=2025,
        venue="ICML",
        arxiv="2503.01874",
    ),
)

PCB_MERGING = MethodRecord(
    name="pcb_merging",
    target="fb_merging.task_vectors.pcb_merging:PcbMerging",
    summary="weigh each update by its size and by its agreement with the others, drop those of low score",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required", locality="element", surveys=4, laws=TASK_VECTOR_LAWS - {Law.SCALE}
    ),
    paper=Paper(
        title="Parameter Competition Balancing for Model Merging",
        authors="Du et al.",
        year=2024,
        venue="NeurIPS",
        arxiv="2410.02396",
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
    CONSENSUS_TA,
    CONSENSUS_TIES,
    RAM,
    RAMPLUS,
    PCB_MERGING,
    METAGPT,
    LOCALIZE_AND_STITCH,
    CABS,
)
