"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fusionbench_core import BuilderRecord, Capabilities, Law, MethodRecord, hookimpl

_CAPABILITIES = Capabilities(
    locality="model",
    output="predictor",
    laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
)

SIMPLE_ENSEMBLE = MethodRecord(
    name="simple_ensemble",
    target="fb_ensemble.simple_ensemble:SimpleEnsemble",
    summary="the mean of all models' outputs",
    tags=("output-space", "data-free", "baseline"),
    capabilities=_CAPABILITIES,
)

WEIGHTED_ENSEMBLE = MethodRecord(
    name="weighted_ensemble",
    target="fb_ensemble.weighted_ensemble:WeightedEnsemble",
    summary="a weighted mean of all models' outputs",
    tags=("output-space", "data-free"),
    capabilities=_CAPABILITIES,
)

MAX_MODEL_PREDICTOR = MethodRecord(
    name="max_model_predictor",
    target="fb_ensemble.max_model_predictor:MaxModelPredictor",
    summary="the largest of all models' outputs, entry by entry",
    tags=("output-space", "data-free"),
    capabilities=_CAPABILITIES,
)

PREDICTOR_BUILDER = BuilderRecord(
    name="predictor",
    target="fb_ensemble.builder:build_predictor",
    summary="an ensemble of the models it refers to",
)

ENTRIES = (SIMPLE_ENSEMBLE, WEIGHTED_ENSEMBLE, MAX_MODEL_PREDICTOR)
"""All methods of this plugin."""


@hookimpl
def fb_methods() -> Iterable[MethodRecord]:
    return ENTRIES


@hookimpl
def fb_builders() -> Iterable[BuilderRecord]:
    return (PREDICTOR_BUILDER,)
