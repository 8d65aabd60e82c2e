"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper, StatisticRecord

REGMEAN = MethodRecord(
    name="regmean",
    target="fb_merging.data_driven.regmean:RegMean",
    summary="the linear weights that best reproduce every model's outputs on its own inputs",
    tags=("average", "data"),
    # Not TRANSLATION or SCALE: the Gram matrices are collected from the models, so they change with them.
    capabilities=Capabilities(
        base="optional",
        locality="tensor",
        scratch=(1, 28),
        statistics=("gram",),
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Dataless Knowledge Fusion by Merging Weights of Language Models",
        authors="Jin et al.",
        year=2023,
        venue="ICLR",
        arxiv="2212.09849",
    ),
)

_FISHER = Paper(
    title="Merging Models with Fisher-Weighted Averaging",
    authors="Matena and Raffel",
    year=2022,
    venue="NeurIPS",
    arxiv="2111.09832",
)

FISHER_MERGING = MethodRecord(
    name="fisher_merging",
    target="fb_merging.data_driven.fisher_merging:FisherMerging",
    summary="average entry by entry, weighted by how much each model's predictions depend on the entry",
    tags=("average", "data"),
    # Not TRANSLATION or SCALE: the Fisher information is collected from the models, so it changes with them.
    capabilities=Capabilities(
        base="optional",
        locality="tensor",
        scratch=(2, 14),
        surveys=1,
        statistics=("diag_fisher",),
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=_FISHER,
)

MATS = MethodRecord(
    name="mats",
    target="fb_merging.data_driven.mats:Mats",
    summary="match the models in their task subspaces by conjugate gradients",
    tags=("average", "data"),
    capabilities=Capabilities(
        base="optional",
        locality="tensor",
        scratch=(8, 16),
        statistics=("gram", "gradient_gram"),
        # Conjugate gradients amplify the rounding of another order of samples.
        random=True,
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Merging by Matching Models in Task Parameter Subspaces",
        authors="Tam et al.",
        year=2024,
        venue="TMLR",
        arxiv="2312.04339",
    ),
)

TRUST_REGION = MethodRecord(
    name="task_arithmetic_trust_region",
    target="fb_merging.data_driven.task_arithmetic_trust_region:TaskArithmeticTrustRegion",
    summary="task arithmetic without the entries where one task's update would hurt another task",
    tags=("task-vectors", "sparse", "data"),
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(4, 8),
        surveys=2,
        statistics=("abs_gradient",),
        tasks=("labels",),
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Task Arithmetic in Trust Region: A Training-Free Model Merging Approach to Navigate Knowledge "
        "Conflicts",
        authors="Sun et al.",
        year=2025,
        venue="ICLR",
        arxiv="2501.15065",
    ),
)

REGMEAN_PLUSPLUS = MethodRecord(
    name="regmean_plusplus",
    target="fb_merging.data_driven.regmean_plusplus:RegMeanPlusPlus",
    summary="RegMean layer by layer, each on what the merged layers before it give",
    tags=("average", "data"),
    capabilities=Capabilities(
        base="optional",
        locality="model",
        tasks=("batches",),
        random=True,
        # Not SCALE: inputs of deeper layers follow the weights before them, and seldom in proportion.
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging",
        authors="Nguyen et al.",
        year=2025,
        arxiv="2508.03121",
    ),
)

GRAM = StatisticRecord(
    name="gram",
    target="fb_merging.data_driven.gram:Gram",
    summary="mean of x xᵀ over the inputs x of every linear layer",
)

ACTIVATIONS = StatisticRecord(
    name="activations",
    target="fb_merging.data_driven.activations:Activations",
    summary="mean square of every input feature of every linear layer",
)

DIAG_FISHER = StatisticRecord(
    name="diag_fisher",
    target="fb_merging.data_driven.diag_fisher:DiagFisher",
    summary="diagonal of the Fisher information: mean squared gradient of the log-likelihood",
)

ABS_GRADIENT = StatisticRecord(
    name="abs_gradient",
    target="fb_merging.data_driven.abs_gradient:AbsGradient",
    summary="mean magnitude of the gradient of each task's loss at the base",
)

GRADIENT_GRAM = StatisticRecord(
    name="gradient_gram",
    target="fb_merging.data_driven.gradient_gram:GradientGram",
    summary="mean of g gᵀ over the gradients g at the outputs of every linear layer",
)

STATISTICS = (GRAM, ACTIVATIONS, DIAG_FISHER, ABS_GRADIENT, GRADIENT_GRAM)
ENTRIES = (REGMEAN, REGMEAN_PLUSPLUS, FISHER_MERGING, MATS, TRUST_REGION)
