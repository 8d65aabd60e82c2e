"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

_OF_ONE_UPDATE = frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE})

MAGNITUDE_PRUNING = MethodRecord(
    name="magnitude_pruning",
    target="fb_merging.compression.magnitude_pruning:MagnitudePruning",
    summary="set the smallest entries of each matrix of one model to 0",
    tags=("compression", "sparse", "data-free"),
    capabilities=Capabilities(max_models=1, locality="row", laws=frozenset({Law.PERMUTATION, Law.SCALE})),
    paper=Paper(
        title="Learning both Weights and Connections for Efficient Neural Networks",
        authors="Han et al.",
        year=2015,
        venue="NeurIPS",
        arxiv="1506.02626",
    ),
)

RANDOM_PRUNING = MethodRecord(
    name="random_pruning",
    target="fb_merging.compression.random_pruning:RandomPruning",
    summary="set random entries of each matrix of one model to 0",
    tags=("compression", "sparse", "data-free"),
    capabilities=Capabilities(
        max_models=1, locality="row", random=True, laws=frozenset({Law.PERMUTATION, Law.SCALE})
    ),
    paper=Paper(
        title="The Unreasonable Effectiveness of Random Pruning",
        authors="Liu et al.",
        year=2022,
        venue="ICLR",
        arxiv="2202.02643",
    ),
)

WANDA_PRUNING = MethodRecord(
    name="wanda_pruning",
    target="fb_merging.compression.wanda_pruning:WandaPruning",
    summary="set the entries of linear layers to 0 that are small, or that small inputs meet",
    tags=("compression", "sparse", "data"),
    # Not SCALE: what goes into a layer is collected from the model, so it changes with the model.
    capabilities=Capabilities(
        max_models=1,
        locality="tensor",
        statistics=("activations",),
        laws=frozenset({Law.PERMUTATION}),
    ),
    paper=Paper(
        title="A Simple and Effective Pruning Approach for Large Language Models",
        authors="Sun et al.",
        year=2024,
        venue="ICLR",
        arxiv="2306.11695",
    ),
)

MAGNITUDE_DIFF_PRUNING = MethodRecord(
    name="magnitude_diff_pruning",
    target="fb_merging.compression.magnitude_diff_pruning:MagnitudeDiffPruning",
    summary="set entries of one model back to the base's where they differ least, or most",
    tags=("compression", "task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", max_models=1, locality="row", laws=_OF_ONE_UPDATE),
    paper=Paper(
        title="Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
        authors="Yu et al.",
        year=2024,
        venue="ICML",
        arxiv="2311.03099",
    ),
)

BITDELTA = MethodRecord(
    name="bitdelta",
    target="fb_merging.compression.bitdelta:BitDelta",
    summary="each task matrix of one model becomes its signs times one number",
    tags=("compression", "task-vectors", "quantisation", "data-free"),
    capabilities=Capabilities(base="required", max_models=1, locality="tensor", laws=_OF_ONE_UPDATE),
    paper=Paper(
        title="BitDelta: Your Fine-Tune May Only Be Worth One Bit",
        authors="Liu et al.",
        year=2024,
        venue="NeurIPS",
        arxiv="2402.10193",
    ),
)

LOW_RANK = MethodRecord(
    name="low_rank",
    target="fb_merging.compression.low_rank:LowRank",
    summary="each task matrix of one model becomes its best approximation of low rank",
    tags=("compression", "task-vectors", "spectral", "data-free"),
    capabilities=Capabilities(
        base="required", max_models=1, locality="tensor", scratch=(1, 20), laws=_OF_ONE_UPDATE
    ),
    paper=Paper(
        title="Efficient Storage of Fine-Tuned Models via Low-Rank Approximation of Weight Residuals",
        authors="Ryu et al.",
        year=2023,
        arxiv="2305.18425",
    ),
)

LORA_EXTRACT = MethodRecord(
    name="lora_extract",
    target="fb_merging.compression.lora_extract:LoraExtract",
    summary="a LoRA adapter over the base, the nearest of its rank to one model",
    tags=("compression", "task-vectors", "spectral", "lora", "data-free"),
    capabilities=Capabilities(
        base="required",
        max_models=1,
        locality="model",
        output="adapter",
        laws=_OF_ONE_UPDATE,
    ),
    paper=Paper(
        title="LoRA: Low-Rank Adaptation of Large Language Models",
        authors="Hu et al.",
        year=2022,
        venue="ICLR",
        arxiv="2106.09685",
    ),
)

ENTRIES: tuple[MethodRecord, ...] = (
    MAGNITUDE_PRUNING,
    RANDOM_PRUNING,
    WANDA_PRUNING,
    MAGNITUDE_DIFF_PRUNING,
    BITDELTA,
    LOW_RANK,
    LORA_EXTRACT,
)
