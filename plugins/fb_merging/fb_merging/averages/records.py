"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

_AVERAGING_LAWS = frozenset(Law)

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
    target="fb_merging.averages.simple_average:SimpleAverage",
    summary="the mean of all models",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="element", laws=_AVERAGING_LAWS),
    paper=_MODEL_SOUPS,
)

WEIGHTED_AVERAGE = MethodRecord(
    name="weighted_average",
    target="fb_merging.averages.weighted_average:WeightedAverage",
    summary="a weighted sum of the models, the weights normalised to one or taken as they are",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="element", laws=_AVERAGING_LAWS),
    paper=_MODEL_SOUPS,
)

SLERP = MethodRecord(
    name="slerp",
    target="fb_merging.averages.slerp:Slerp",
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

ENTRIES = (
    SIMPLE_AVERAGE,
    WEIGHTED_AVERAGE,
    SLERP,
)
