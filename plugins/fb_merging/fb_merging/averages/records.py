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

LINEAR_INTERPOLATION = MethodRecord(
    name="linear_interpolation",
    target="fb_merging.averages.linear_interpolation:LinearInterpolation",
    summary="linear interpolation between two models",
    tags=("interpolation", "data-free"),
    capabilities=Capabilities(
        base="optional",
        min_models=2,
        max_models=2,
        locality="element",
        ordered=True,
        laws=frozenset({Law.IDENTICAL, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE}),
    ),
    paper=Paper(
        title="Robust fine-tuning of zero-shot models",
        authors="Wortsman et al.",
        year=2022,
        venue="CVPR",
        arxiv="2109.01903",
    ),
)

NUSLERP = MethodRecord(
    name="nuslerp",
    target="fb_merging.averages.nuslerp:NuSlerp",
    summary="spherical interpolation between two models by a weight for each, by tensor, row or column",
    tags=("interpolation", "data-free"),
    capabilities=Capabilities(
        base="optional",
        min_models=2,
        max_models=2,
        locality="tensor",
        laws=frozenset({Law.IDENTICAL, Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.SCALE}),
    ),
    paper=SLERP.paper,
)

_SPHERICAL_LAWS = frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.SCALE})

MULTISLERP = MethodRecord(
    name="multislerp",
    target="fb_merging.averages.multislerp:MultiSlerp",
    summary="average the directions and the lengths of any number of models apart, tensor by tensor",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="tensor", laws=_SPHERICAL_LAWS),
    paper=Paper(title="Multi-SLERP (mergekit)", authors="Goddard", year=2025),
)

KARCHER = MethodRecord(
    name="karcher",
    target="fb_merging.averages.karcher:Karcher",
    summary="the mean on the sphere of any number of models, tensor by tensor",
    tags=("average", "data-free"),
    capabilities=Capabilities(base="optional", locality="tensor", laws=_SPHERICAL_LAWS),
    paper=Paper(
        title="Functionality-Oriented LLM Merging on the Fisher-Rao Manifold",
        authors="Wang et al.",
        year=2026,
        arxiv="2603.04972",
    ),
)

PASSTHROUGH = MethodRecord(
    name="passthrough",
    target="fb_merging.averages.passthrough:Passthrough",
    summary="one model as it is, or multiplied by a number",
    tags=("data-free",),
    capabilities=Capabilities(base="optional", max_models=1, locality="element", laws=_AVERAGING_LAWS),
    paper=Paper(
        title="Arcee's MergeKit: A Toolkit for Merging Large Language Models",
        authors="Goddard et al.",
        year=2024,
        venue="EMNLP",
        arxiv="2403.13257",
    ),
)

MODEL_STOCK = MethodRecord(
    name="model_stock",
    target="fb_merging.averages.model_stock:ModelStock",
    summary="between the base and the mean of the models, by the angle between their task vectors",
    tags=("average", "data-free"),
    capabilities=Capabilities(
        base="required",
        min_models=2,
        locality="tensor",
        laws=frozenset(Law) - {Law.SINGLE},
    ),
    paper=Paper(
        title="Model Stock: All we need is just a few fine-tuned models",
        authors="Jang et al.",
        year=2024,
        venue="ECCV",
        arxiv="2403.19522",
    ),
)

EXPO = MethodRecord(
    name="expo",
    target="fb_merging.averages.expo:Expo",
    summary="go on in the direction from the base to an aligned model",
    tags=("interpolation", "task-vectors", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="element",
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE}),
    ),
    paper=Paper(
        title="Model Extrapolation Expedites Alignment",
        authors="Zheng et al.",
        year=2025,
        venue="ACL",
        arxiv="2404.16792",
    ),
)

NEARSWAP = MethodRecord(
    name="nearswap",
    target="fb_merging.averages.nearswap:NearSwap",
    summary="move the base towards a model, entry by entry, by no more than a fixed step",
    tags=("interpolation", "data-free"),
    capabilities=Capabilities(
        base="required",
        max_models=1,
        locality="element",
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT, Law.TRANSLATION}),
    ),
    paper=Paper(title="QuartetAnemoi-70B-t0.0001 (model card)", authors="alchemonaut", year=2024),
)

ARCEE_FUSION = MethodRecord(
    name="arcee_fusion",
    target="fb_merging.averages.arcee_fusion:ArceeFusion",
    summary="take over those entries of a model that differ most from the base",
    tags=("interpolation", "sparse", "data-free"),
    capabilities=Capabilities(
        base="required",
        max_models=1,
        locality="tensor",
        scratch=(2, 14),
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=PASSTHROUGH.paper,
)

ENTRIES = (
    SIMPLE_AVERAGE,
    WEIGHTED_AVERAGE,
    LINEAR_INTERPOLATION,
    SLERP,
    NUSLERP,
    MULTISLERP,
    KARCHER,
    MODEL_STOCK,
    PASSTHROUGH,
    EXPO,
    NEARSWAP,
    ARCEE_FUSION,
)
