"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

DEPTH_UPSCALING = MethodRecord(
    name="depth_upscaling",
    target="fb_mixing.depth.depth_upscaling:DepthUpscaling",
    summary="a deeper model: layers stacked anew, some of them twice",
    tags=("upscaling", "data-free"),
    capabilities=Capabilities(
        base="optional",
        max_models=1,
        locality="model",
        output="module",
        laws=frozenset({Law.PERMUTATION}),
    ),
    paper=Paper(
        title="SOLAR 10.7B: Scaling Large Language Models with Simple yet Effective Depth Up-Scaling",
        authors="Kim et al.",
        year=2024,
        venue="NAACL",
        arxiv="2312.15166",
    ),
)

STACKED = BuilderRecord(
    name="stacked",
    target="fb_mixing.depth.builder:build_stacked",
    summary="a model whose layers are stacked anew",
)

ENTRIES = (DEPTH_UPSCALING,)
BUILDERS = (STACKED,)
