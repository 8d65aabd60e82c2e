"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

import dataclasses

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

ADAMERGING = MethodRecord(
    name="adamerging",
    target="fb_merging.learned.adamerging:AdaMerging",
    summary="learn how much of each task vector to add, by making predictions on unlabelled data certain",
    tags=("task-vectors", "data", "learned"),
    # Not PERMUTATION: Adam divides by tiny gradients, which amplifies the rounding of another order.
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "logits"),
        trains=True,
        random=True,
        laws=frozenset({Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="AdaMerging: Adaptive Model Merging for Multi-Task Learning",
        authors="Yang et al.",
        year=2024,
        venue="ICLR",
        arxiv="2310.02575",
    ),
)

_LEARNED = Capabilities(
    base="required",
    locality="model",
    tasks=("batches", "logits"),
    trains=True,
    random=True,
    laws=frozenset({Law.BASE_FIXED_POINT}),
)

_CONCRETE = Paper(
    title="Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion",
    authors="Tang et al.",
    year=2023,
    arxiv="2312.06173",
)

CONCRETE_TASK_ARITHMETIC = MethodRecord(
    name="concrete_task_arithmetic",
    target="fb_merging.learned.concrete_task_arithmetic:ConcreteTaskArithmetic",
    summary="task arithmetic under one mask for all task vectors, learned on unlabelled data",
    tags=("task-vectors", "sparse", "data", "learned"),
    capabilities=_LEARNED,
    paper=_CONCRETE,
)

CONCRETE_ADAMERGING = MethodRecord(
    name="concrete_adamerging",
    target="fb_merging.learned.concrete_adamerging:ConcreteAdaMerging",
    summary="learn one mask for all task vectors, and then how much of each to add",
    tags=("task-vectors", "sparse", "data", "learned"),
    capabilities=_LEARNED,
    paper=_CONCRETE,
)

_DAM = Paper(
    title="Mitigating the Backdoor Effect for Multi-Task Model Merging via Safety-Aware Subspace",
    authors="Yang et al.",
    year=2025,
    venue="ICLR",
    arxiv="2410.13910",
)

SAFE_CONCRETE_ADAMERGING = MethodRecord(
    name="safe_concrete_adamerging",
    target="fb_merging.learned.safe_concrete_adamerging:SafeConcreteAdaMerging",
    summary="concrete AdaMerging whose mask keeps backdoors of the models from being inherited",
    tags=("task-vectors", "sparse", "defence", "data", "learned"),
    capabilities=_LEARNED,
    paper=_DAM,
)

_OF_A_MERGED_MODEL = dataclasses.replace(_LEARNED, max_models=1)

POST_DEFENSE_AWM = MethodRecord(
    name="post_defense_awm",
    target="fb_merging.learned.post_defense_awm:PostDefenseAWM",
    summary="mask the update of a merged model so that perturbed inputs do not turn its predictions",
    tags=("task-vectors", "sparse", "defence", "data", "learned"),
    capabilities=_OF_A_MERGED_MODEL,
    paper=_DAM,
)

POST_DEFENSE_SAU = MethodRecord(
    name="post_defense_sau",
    target="fb_merging.learned.post_defense_sau:PostDefenseSAU",
    summary="mask the update of a merged model so that it unlearns what perturbed inputs turn it to",
    tags=("task-vectors", "sparse", "defence", "data", "learned"),
    capabilities=_OF_A_MERGED_MODEL,
    paper=_DAM,
)

ADARANK = MethodRecord(
    name="adarank",
    target="fb_merging.learned.adarank:AdaRank",
    summary="learn which singular components of each task matrix to add, and how much of them",
    tags=("task-vectors", "spectral", "data", "learned"),
    capabilities=_LEARNED,
    paper=Paper(
        title="AdaRank: Adaptive Rank Pruning for Enhanced Model Merging",
        authors="Lee et al.",
        year=2026,
        venue="ICLR",
        arxiv="2503.22178",
    ),
)

_DOGE = Paper(
    title="Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent",
    authors="Wei et al.",
    year=2025,
    venue="ICML",
    arxiv="2501.01230",
)

DOGE_TA = MethodRecord(
    name="doge_ta",
    target="fb_merging.learned.doge_ta:DogeTaskArithmetic",
    summary="task arithmetic with a change of all task matrices that makes them conflict less",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(3, 24),
        surveys=2,
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION}),
    ),
    paper=_DOGE,
)

DOGE_ADAMERGING = MethodRecord(
    name="doge_adamerging",
    target="fb_merging.learned.doge_adamerging:DogeAdaMerging",
    summary="AdaMerging on task matrices that were changed so as to conflict less",
    tags=("task-vectors", "sparse", "data", "learned"),
    capabilities=_LEARNED,
    paper=_DOGE,
)

FW_MERGING = MethodRecord(
    name="fw_merging",
    target="fb_merging.learned.fw_merging:FwMerging",
    summary="move towards the models that the gradient of labelled data points to (Frank-Wolfe)",
    tags=("task-vectors", "data", "learned"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "labels", "logits", "loss"),
        trains=True,
        random=True,
        laws=frozenset({Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="FW-Merging: Scaling Model Merging with Frank-Wolfe Optimization",
        authors="Chen et al.",
        year=2025,
        venue="ICCV",
        arxiv="2503.12649",
    ),
)

GOSSIP = MethodRecord(
    name="gossip",
    target="fb_merging.learned.gossip:Gossip",
    summary="every model merges with its neighbours by AdaMerging, round by round; the average of all",
    tags=("task-vectors", "decentralised", "data", "learned"),
    capabilities=dataclasses.replace(_LEARNED, ordered=True),
    paper=Paper(
        title="FusionBench: A Comprehensive Benchmark of Deep Model Fusion",
        authors="Tang et al.",
        year=2024,
        arxiv="2406.03280",
    ),
)

SURGERY = MethodRecord(
    name="surgery",
    target="fb_merging.learned.surgery:Surgery",
    summary="correct the merged model's representations for each task towards its own model's",
    tags=("task-vectors", "task-conditioned", "data", "learned"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "logits"),
        trains=True,
        random=True,
        output="conditioned",
    ),
    paper=Paper(
        title="Representation Surgery for Multi-Task Model Merging",
        authors="Yang et al.",
        year=2024,
        venue="ICML",
        arxiv="2402.02705",
    ),
)

SYMERGE = MethodRecord(
    name="symerge",
    target="fb_merging.learned.symerge:SyMerge",
    summary="learn coefficients, and a layer of its own for each task, from the models' own predictions",
    tags=("task-vectors", "task-conditioned", "data", "learned"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "logits"),
        trains=True,
        random=True,
        output="conditioned",
    ),
    paper=Paper(
        title="SyMerge: From Non-Interference to Synergistic Merging via Single-Layer Adaptation",
        authors="Jung et al.",
        year=2026,
        venue="ICML",
        arxiv="2412.19098",
    ),
)

TASK_LAYERS = BuilderRecord(
    name="task_layers",
    target="fb_merging.learned.task_layers:build_task_layers",
    summary="a merged trunk, and a layer of its own for each task",
)

SURGERY_MODEL = BuilderRecord(
    name="surgery",
    target="fb_merging.learned.surgery_model:build_surgery",
    summary="a merged trunk, and a low-rank correction of its representations for each task",
)

BUILDERS = (SURGERY_MODEL, TASK_LAYERS)

ENTRIES = (
    ADAMERGING,
    CONCRETE_TASK_ARITHMETIC,
    CONCRETE_ADAMERGING,
    SAFE_CONCRETE_ADAMERGING,
    POST_DEFENSE_AWM,
    POST_DEFENSE_SAU,
    ADARANK,
    DOGE_TA,
    DOGE_ADAMERGING,
    FW_MERGING,
    GOSSIP,
    SURGERY,
    SYMERGE,
)
