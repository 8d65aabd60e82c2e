"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fusionbench_core.hookspecs import hookimpl
from fusionbench_core.records import Capabilities, ConfigRecord, Law, MethodRecord, Paper, StatisticRecord

_AVERAGING_LAWS = frozenset(Law)
_TASK_VECTOR_LAWS = frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE})

_MODEL_SOUPS = Paper(
    title=(
        "Model soups: averaging weights of multiple fine-tuned models improves accuracy "
        "without increasing inference time"
    ),
    authors="Wortsman et al.",
    year=2022,
    venue="ICML",
    arxiv="2203.05482",
)

SIMPLE_AVERAGE = MethodRecord(
    name="simple_average",
    target="fb_merging.simple_average:SimpleAverage",
    summary="the mean of all models",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="element", laws=_AVERAGING_LAWS),
    paper=_MODEL_SOUPS,
)

WEIGHTED_AVERAGE = MethodRecord(
    name="weighted_average",
    target="fb_merging.weighted_average:WeightedAverage",
    summary="a weighted sum of the models, the weights normalised to one or taken as they are",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="element", laws=_AVERAGING_LAWS),
    paper=_MODEL_SOUPS,
)

TASK_ARITHMETIC = MethodRecord(
    name="task_arithmetic",
    target="fb_merging.task_arithmetic:TaskArithmetic",
    summary="the base plus the scaled sum of all task vectors",
    tags=("task-vectors", "data-free"),
    capabilities=Capabilities(base="required", locality="element", laws=_TASK_VECTOR_LAWS),
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
    target="fb_merging.ties_merging:TiesMerging",
    summary="trim small updates, elect a sign for each entry, merge the updates that agree with it",
    tags=("task-vectors", "sparse", "data-free"),
    capabilities=Capabilities(base="required", locality="element", surveys=2, laws=_TASK_VECTOR_LAWS),
    paper=Paper(
        title="TIES-Merging: Resolving Interference When Merging Models",
        authors="Yadav et al.",
        year=2023,
        venue="NeurIPS",
        arxiv="2306.01708",
    ),
)

SLERP = MethodRecord(
    name="slerp",
    target="fb_merging.slerp:Slerp",
    summary="spherical interpolation between two models, tensor by tensor",
    tags=("interpolation", "data-free"),
    capabilities=Capabilities(
        base="optional",
        min_models=2,
        max_models=2,
        locality="tensor",
        ordered=True,
        laws=frozenset({Law.IDENTICAL, Law.BASE_FIXED_POINT, Law.SCALE}),
    ),
    paper=Paper(
        title="Animating rotation with quaternion curves", authors="Shoemake", year=1985, venue="SIGGRAPH"
    ),
)

REGMEAN = MethodRecord(
    name="regmean",
    target="fb_merging.regmean:RegMean",
    summary="the linear weights that best reproduce every model's outputs on its own inputs",
    tags=("average", "data"),
    # Not TRANSLATION or SCALE: the Gram matrices are collected from the models, so they change with them.
    capabilities=Capabilities(
        base="optional",
        locality="tensor",
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

ADAMERGING = MethodRecord(
    name="adamerging",
    target="fb_merging.adamerging:AdaMerging",
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

ENTRIES = (SIMPLE_AVERAGE, WEIGHTED_AVERAGE, TASK_ARITHMETIC, TIES_MERGING, SLERP, REGMEAN, ADAMERGING)
"""All methods of this plugin."""

GRAM = StatisticRecord(
    name="gram",
    target="fb_merging.gram:Gram",
    summary="mean of x xᵀ over the inputs x of every linear layer",
)


@hookimpl
def fb_methods() -> Iterable[MethodRecord]:
    return ENTRIES


@hookimpl
def fb_statistics() -> Iterable[StatisticRecord]:
    return (GRAM,)


@hookimpl
def fb_configs() -> Iterable[ConfigRecord]:
    return (ConfigRecord(package="fb_merging.configs"),)
