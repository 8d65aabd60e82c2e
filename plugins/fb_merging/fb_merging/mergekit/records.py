"""Record of the converter in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import ConverterRecord

MERGEKIT = ConverterRecord(
    name="mergekit",
    target="fb_merging.mergekit.convert:convert",
    summary="mergekit's YAML: merges of whole models and of slices, gradients, filters, several stages",
    tags=("mergekit", "llm"),
)
