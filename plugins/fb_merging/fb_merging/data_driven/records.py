"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper, StatisticRecord

REGMEAN = MethodRecord(
    name="regmean",
    target="fb_merging.data_driven.regmean:RegMean",
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

GRAM = StatisticRecord(
    name="gram",
    target="fb_merging.data_driven.gram:Gram",
    summary="mean of x xᵀ over the inputs x of every linear layer",
)

ENTRIES = (REGMEAN,)
