"""Records of SMILE; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

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
    paper=Paper(
        title="SMILE: Zero-Shot Sparse Mixture of Low-Rank Experts Construction "
        "From Pre-Trained Foundation Models",
        authors="Tang et al.",
        year=2024,
        arxiv="2408.10174",
    ),
)

SMILE_BUILDER = BuilderRecord(
    name="smile",
    target="fb_mixing.smile.builder:build_smile",
    summary="a model whose linear layers are SMILE mixtures",
)

ENTRIES = (SMILE_UPSCALING,)
BUILDERS = (SMILE_BUILDER,)
