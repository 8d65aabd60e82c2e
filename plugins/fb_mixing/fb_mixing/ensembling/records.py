"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

# Not PERMUTATION: Adam divides by tiny gradients, which amplifies the rounding of another order.
_LEARNED = Capabilities(
    base="required",
    locality="model",
    tasks=("batches", "logits"),
    trains=True,
    random=True,
    output="module",
    laws=frozenset({Law.BASE_FIXED_POINT}),
)

WEIGHT_ENSEMBLING_MOE = MethodRecord(
    name="weight_ensembling_moe",
    target="fb_mixing.ensembling.weight_ensembling_moe:WeightEnsemblingMoE",
    summary="a router adds up task vectors of the feed-forward modules anew for every sample",
    tags=("moe", "task-vectors", "data", "learned"),
    capabilities=_LEARNED,
    paper=Paper(
        title="Merging Multi-Task Models via Weight-Ensembling Mixture of Experts",
        authors="Tang et al.",
        year=2024,
        venue="ICML",
        arxiv="2402.00433",
    ),
)

EFFICIENT_WEIGHT_ENSEMBLING_MOE = MethodRecord(
    name="efficient_weight_ensembling_moe",
    target="fb_mixing.ensembling.efficient:EfficientWeightEnsemblingMoE",
    summary="the same with pruned task vectors and one router for all modules",
    tags=("moe", "task-vectors", "sparse", "data", "learned"),
    capabilities=_LEARNED,
    paper=Paper(
        title="Efficient and Effective Weight-Ensembling Mixture of Experts for Multi-Task Model Merging",
        authors="Shen et al.",
        year=2024,
        arxiv="2410.21804",
    ),
)

RANK_ONE_MOE = MethodRecord(
    name="rank_one_moe",
    target="fb_mixing.ensembling.rank_one_moe:RankOneMoE",
    summary="a router weighs the leading singular directions of every task vector for every sample",
    tags=("moe", "task-vectors", "low-rank", "data", "learned"),
    capabilities=_LEARNED,
)

PWE_MOE = MethodRecord(
    name="pwe_moe",
    target="fb_mixing.ensembling.pwe_moe:ParetoWeightEnsemblingMoE",
    summary="a router adds up task vectors for any preference among the tasks: one model, all trade-offs",
    tags=("moe", "task-vectors", "pareto", "data", "learned"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches", "labels", "logits", "loss"),
        trains=True,
        random=True,
        output="module",
        laws=frozenset({Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Towards Efficient Pareto Set Approximation via Mixture of Experts Based Model Fusion",
        authors="Tang et al.",
        year=2024,
        arxiv="2406.09770",
    ),
)

DAWE = MethodRecord(
    name="dawe",
    target="fb_mixing.ensembling.dawe:DataAdaptiveWeightEnsembling",
    summary="a router adds up the task vectors of the whole model anew for every sample",
    tags=("moe", "task-vectors", "data", "learned"),
    capabilities=_LEARNED,
)

WEIGHT_ENSEMBLING = BuilderRecord(
    name="weight_ensembling",
    target="fb_mixing.ensembling.builder:build_weight_ensembling",
    summary="a model in which routers add up task vectors",
)

DATA_ADAPTIVE = BuilderRecord(
    name="data_adaptive",
    target="fb_mixing.ensembling.builder:build_data_adaptive",
    summary="a model whose weights are put together for each sample",
)

ENTRIES = (WEIGHT_ENSEMBLING_MOE, EFFICIENT_WEIGHT_ENSEMBLING_MOE, RANK_ONE_MOE, PWE_MOE, DAWE)
BUILDERS = (WEIGHT_ENSEMBLING, DATA_ADAPTIVE)
