"""Records of SMILE; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

_SMILE = Paper(
    title="SMILE: Zero-Shot Sparse Mixture of Low-Rank Experts Construction "
    "From Pre-Trained Foundation Models",
    authors="Tang et al.",
    year=2024,
    arxiv="2408.10174",
)

SMILE_UPSCALING = MethodRecord(
    name="smile_upscaling",
    target="fb_mixing.smile.method:SmileUpscaling",
    summary="every linear layer becomes the base's plus a sparse mixture of low-rank experts",
    tags=("moe", "low-rank", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="layer",
        output="module",
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=_SMILE,
)

ADA_SVD = MethodRecord(
    name="ada_svd",
    target="fb_mixing.smile.ada_svd:AdaSvd",
    summary="add up the linear layers' task vectors as SMILE weighs them on average over data",
    tags=("task-vectors", "spectral", "data"),
    capabilities=Capabilities(
        base="required",
        locality="model",
        tasks=("batches",),
        random=True,
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=_SMILE,
)

SMILE_BUILDER = BuilderRecord(
    name="smile",
    target="fb_mixing.smile.builder:build_smile",
    summary="a model whose linear layers are SMILE mixtures",
)

ENTRIES = (SMILE_UPSCALING, ADA_SVD)
BUILDERS = (SMILE_BUILDER,)
