"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

MODEL_RECOMBINATION = MethodRecord(
    name="model_recombination",
    target="fb_mixing.recombination.model_recombination:ModelRecombination",
    summary="each layer from another model, drawn at random",
    tags=("recombination", "data-free"),
    capabilities=Capabilities(base="optional", locality="layer", random=True, laws=frozenset(Law)),
    paper=Paper(
        title="Is Aggregation the Only Choice? Federated Learning via Layer-wise Model Recombination",
        authors="Hu et al.",
        year=2024,
        venue="KDD",
        arxiv="2305.10730",
    ),
)

ENTRIES: tuple[MethodRecord, ...] = (MODEL_RECOMBINATION,)
BUILDERS: tuple[BuilderRecord, ...] = ()
