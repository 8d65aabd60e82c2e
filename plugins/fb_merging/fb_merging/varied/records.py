"""Record of the method in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fb_merging.averages.records import SIMPLE_AVERAGE
from fusionbench_core.records import MethodRecord, Paper

VARIED = MethodRecord(
    name="varied",
    target="fb_merging.varied.varied:Varied",
    summary="another method, with parameters that differ by layer, by names of tensors and by model",
    tags=("wrapper", "data-free"),
    capabilities=SIMPLE_AVERAGE.capabilities,
    paper=Paper(
        title="Arcee's MergeKit: A Toolkit for Merging Large Language Models",
        authors="Goddard et al.",
        year=2024,
        venue="EMNLP",
        arxiv="2403.13257",
    ),
)

ENTRIES: tuple[MethodRecord, ...] = (VARIED,)
