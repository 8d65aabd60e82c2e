"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fusionbench_core import ConfigRecord, SourceRecord, TaskRecord, hookimpl

SOURCES = (
    SourceRecord(
        name="clip_vision",
        target="fb_clip_tasks.sources.clip_vision:ClipVision",
        summary="The vision tower of a transformers CLIP model with its projection",
        tags=("vision", "clip", "transformers"),
    ),
    SourceRecord(
        name="clip",
        target="fb_clip_tasks.sources.clip:Clip",
        summary="A full transformers CLIP model, both towers",
        tags=("vision", "text", "clip", "transformers"),
    ),
    SourceRecord(
        name="image_classifier",
        target="fb_clip_tasks.sources.image_classifier:ImageClassifier",
        summary="A transformers image classifier with its own head: ViT, ResNet, ConvNeXt, …",
        tags=("vision", "classification", "transformers"),
    ),
    SourceRecord(
        name="open_clip",
        target="fb_clip_tasks.sources.open_clip:OpenClip",
        summary="An open_clip model from a local checkpoint, whole or its visual tower alone",
        tags=("vision", "clip", "open_clip"),
    ),
)

_PROVIDES = ("evaluate", "batches", "labels", "logits", "loss")

TASKS = (
    TaskRecord(
        name="zero_shot_image_classification",
        target="fb_clip_tasks.tasks.zero_shot:ZeroShotImageClassification",
        summary="Classify images by the nearest class prompt, as CLIP does; the head is frozen",
        tags=("vision", "clip", "classification"),
        provides=_PROVIDES,
        metrics=("accuracy", "loss"),
    ),
    TaskRecord(
        name="image_classification",
        target="fb_clip_tasks.tasks.image_classification:ImageClassification",
        summary="Classify images with the model's own head, or with an expert's",
        tags=("vision", "classification"),
        provides=_PROVIDES,
        metrics=("accuracy", "loss"),
    ),
)


@hookimpl
def fb_model_sources() -> Iterable[SourceRecord]:
    return SOURCES


@hookimpl
def fb_tasks() -> Iterable[TaskRecord]:
    return TASKS


@hookimpl
def fb_configs() -> Iterable[ConfigRecord]:
    return (ConfigRecord(package="fb_clip_tasks.configs"),)
