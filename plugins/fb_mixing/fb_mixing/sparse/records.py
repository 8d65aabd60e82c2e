"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

_MIXTRAL = Paper(title="Mixtral of Experts", authors="Jiang et al.", year=2024, arxiv="2401.04088")

MIXTRAL_UPCYCLING = MethodRecord(
    name="mixtral_upcycling",
    target="fb_mixing.sparse.mixtral_upcycling:MixtralUpcycling",
    summary="every feed-forward module becomes a sparse mixture of copies of itself",
    tags=("moe", "upscaling", "data-free"),
    capabilities=Capabilities(
        base="optional",
        max_models=1,
        locality="model",
        output="module",
        random=True,
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=Paper(
        title="Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints",
        authors="Komatsuzaki et al.",
        year=2023,
        venue="ICLR",
        arxiv="2212.05055",
    ),
)

MIXTRAL_MERGING = MethodRecord(
    name="mixtral_merging",
    target="fb_mixing.sparse.mixtral_merging:MixtralMerging",
    summary="the models' feed-forward modules become the experts of a sparse mixture",
    tags=("moe", "upscaling", "data-free"),
    capabilities=Capabilities(
        base="required",
        min_models=2,
        locality="model",
        output="module",
        random=True,
        laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT}),
    ),
    paper=_MIXTRAL,
)

SPARSE_MIXTURES = BuilderRecord(
    name="sparse_mixtures",
    target="fb_mixing.sparse.builder:build_sparse_mixtures",
    summary="a model whose feed-forward modules are sparse mixtures",
)

ENTRIES = (MIXTRAL_UPCYCLING, MIXTRAL_MERGING)
BUILDERS = (SPARSE_MIXTURES,)
