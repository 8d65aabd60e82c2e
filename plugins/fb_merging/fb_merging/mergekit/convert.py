"""From a config of mergekit to one of this platform that gives the same model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from fb_merging.mergekit.document import Block, Document, Source, read_document
from fb_merging.mergekit.methods import METHODS
from fb_merging.mergekit.modules import patterns_of
from fb_merging.mergekit.parameters import Piece, check_names, section_of
from fb_merging.mergekit.reference import Model
from fb_merging.mergekit.rules import Part
from fb_merging.mergekit.stages import linked
from fb_merging.mergekit.templates import TEMPLATES
from fb_merging.mergekit.tokenizer import RESERVED, tokenizer_of
from fusionbench_core import ConfigError, Converted, did_you_mean

_DTYPES = ("bfloat16", "float16", "float32", "float64")


def convert(text: str) -> Converted:
    """The config that gives the same model, or models, as mergekit gives for `text`.

    Raises:
        ConfigError: if mergekit would refuse it, or ignore a misspelt key; or if it cannot be had here.
    """
    try:
        said = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise ConfigError("the config is not valid YAML", why=str(error)) from error
    if not said:
        raise ConfigError("the config is empty", fix="it starts with merge_method: and models: or slices:")
    stages, last = linked([read_document(each) for each in said])
    notes: list[tuple[str, str]] = []
    values: dict[str, Any] = {}
    if stages:
        values["stages"] = {name: _run(document, notes) for name, document in stages.items()}
        notes = [("stages", remark) for _, remark in notes]
    values.update(_run(last, notes))
    return Converted(values, tuple(dict.fromkeys(notes)))


def _run(document: Document, notes: list[tuple[str, str]]) -> dict[str, Any]:
    if document.method not in METHODS:
        raise ConfigError(
            f"mergekit has no merge_method {document.method!r}",
            config="merge_method",
            fix=did_you_mean(document.method, METHODS) or f"it has {', '.join(METHODS)}",
        )
    method = METHODS[document.method]
    if method.needs_base and any(block.base is None for block in document.blocks):
        raise ConfigError(
            f"{document.method} needs a base model", config="base_model", fix="add base_model: PATH"
        )
    notes += [("method", f"{key}: {remark}") for key, remark in document.notes]
    notes += check_names(document)
    pool, pieces = _pool(document)
    section = section_of(document, pieces, has_base="base" in pool)
    values: dict[str, Any] = {"method": section, "modelpool": pool}
    engine = _engine(document, notes)
    if engine:
        values["engine"] = engine
    if "tokenizer" not in pool and "base" not in pool and len(document.models) > 1:
        notes.append(
            ("modelpool", f"config and tokenizer are those of {document.models[0].label}, the first model")
        )
    values["taskpool"] = None
    return values


def _pool(document: Document) -> tuple[dict[str, Any], list[Piece]]:
    """The `modelpool` section, and the blocks in terms of its models."""
    role = METHODS[document.method].base
    inputs = [_inputs(block, role) for block in document.blocks]
    sliced = any(source.layers for block in document.blocks for source in block.sources)
    if sliced and len({block.module for block in document.blocks}) > 1:
        raise ConfigError(
            "slices in one of several modules cannot be converted",
            config="modules",
            fix="write a config of your own: `slices` of one stack, with modelpool.layer_names to say which",
        )
    pool: dict[str, Any] = {}
    if any(model.is_remote for model in document.models):
        pool["source"] = "causal_lm"
    if sliced:
        base, models, names = _columns(document, inputs, role)
    else:
        base = document.base
        each = list(dict.fromkeys(source.model for block in inputs for source in block))
        labels = dict(zip(each, _distinct([model.label for model in each])))
        models = {labels[model]: model.reference() for model in labels}
        names = [tuple(labels[source.model] for source in block) for block in inputs]
    if base is not None:
        pool["base"] = base.reference() if isinstance(base, Model) else base
    pool["models"] = models
    tokenizer = tokenizer_of(
        document.settings, _vocabularies(document, inputs, names, role, base is not None)
    )
    if tokenizer is not None:
        pool["tokenizer"] = tokenizer
    template = document.settings["chat_template"]
    if template is not None:
        pool["chat_template"] = _template(str(template))
    pieces = [
        Piece(own, sources, block.scopes, part, block.where)
        for own, sources, block, part in zip(names, inputs, document.blocks, _parts(document, sliced))
    ]
    return pool, pieces


def _inputs(block: Block, role: str) -> tuple[Source, ...]:
    """What is merged in a block, in the order of the pool."""
    sources = list(dict.fromkeys(source.model for source in block.sources))
    by_model = {source.model: source for source in reversed(block.sources)}
    if block.base is not None and block.base not in by_model:
        if block.sources[0].layers is not None and role != "input":
            raise ConfigError(
                f"this slice lacks layers of the base model {block.base.label}",
                config=f"{block.where}.sources",
                fix=f"add the base as a source: {{model: {block.base.path}, layer_range: […]}}",
            )
        if block.sources[0].layers is None:
            by_model[block.base] = Source(block.base, {})
            sources.append(block.base)
    if role == "apart":
        sources = [model for model in sources if model != block.base]
    if role == "first" and block.base is not None:
        sources = [block.base, *(model for model in sources if model != block.base)]
    if not sources:
        raise ConfigError("nothing but the base model is merged", config=block.where, fix="add another model")
    return tuple(by_model[model] for model in sources)


def _columns(
    document: Document, inputs: Sequence[tuple[Source, ...]], role: str
) -> tuple[Any, dict[str, Any], list[tuple[str, ...]]]:
    """Base and models of a pool whose layers are put together from slices."""
    width = max(len(block) for block in inputs)
    # A slice with fewer sources is filled up with its first one, which is then not merged there.
    columns = [[block[index if index < len(block) else 0] for block in inputs] for index in range(width)]
    labels = ["_and_".join(dict.fromkeys(source.model.label for source in column)) for column in columns]
    names = _distinct(labels)
    models = {name: _stack(column) for name, column in zip(names, columns)}
    base = None
    if role == "apart" and document.blocks[0].base is not None:
        own = [
            next(source for source in block.sources if source.model == block.base)
            for block in document.blocks
        ]
        base = _stack(own)
    return base, models, [tuple(names[: len(block)]) for block in inputs]


def _stack(sources: Sequence[Source]) -> dict[str, Any]:
    return {
        "slices": [
            {"model": source.model.reference(), "layers": list(source.layers or ())} for source in sources
        ]
    }


def _parts(document: Document, sliced: bool) -> list[Part]:
    if not sliced:
        modules = [block.module for block in document.blocks]
        return [Part(tensors=patterns_of(module, modules)) for module in modules]
    if len(document.blocks) == 1:
        return [Part()]
    parts, start = [], 0
    for number, block in enumerate(document.blocks):
        first, stop = block.sources[0].layers or (0, 0)
        end = start + stop - first
        parts.append(Part(layers=(start, end), first=number == 0, last=number == len(document.blocks) - 1))
        start = end
    return parts


def _vocabularies(
    document: Document,
    inputs: Sequence[tuple[Source, ...]],
    names: Sequence[tuple[str, ...]],
    role: str,
    has_base: bool,
) -> dict[Model, str]:
    """The pool's name of what has a model's vocabulary: of a stack that is its lowest model's."""
    found = {source.model: name for source, name in zip(inputs[0], names[0])}
    for sources, own in zip(inputs[1:], names[1:]):
        found = {**{source.model: name for source, name in zip(sources, own)}, **found}
    if has_base and document.blocks[0].base is not None:
        found[document.blocks[0].base] = "base"
    return found


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, made different from each other and from words that a tokenizer's section has."""
    names: list[str] = []
    for label in labels:
        name, number = label, 2
        while name in (*names, *RESERVED):
            name, number = f"{label}_{number}", number + 1
        names.append(name)
    return names


def _engine(document: Document, notes: list[tuple[str, str]]) -> dict[str, Any]:
    work, out = document.settings["dtype"], document.settings["out_dtype"]
    for key, dtype in (("dtype", work), ("out_dtype", out)):
        if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ConfigError(
                f"{dtype!r} is no dtype to merge in", config=key, fix=f"choose from {', '.join(_DTYPES)}"
            )
    if work in ("bfloat16", "float16"):
        notes.append(("engine", f"mergekit computes in {work}, this in float32, and rounds once at the end"))
    written = out or work
    engine = {"dtype": str(written).removeprefix("torch.")} if written else {}
    return {**engine, "accumulate": "float64"} if work == "float64" else engine


def _template(said: str) -> str:
    if said == "auto" or said in TEMPLATES:
        return TEMPLATES.get(said, said)
    if "{" not in said or len(said) < 20:
        raise ConfigError(
            f"{said!r} is no chat template",
            config="chat_template",
            fix=did_you_mean(said, TEMPLATES) or f"write Jinja, auto, or one of {', '.join(TEMPLATES)}",
        )
    return said
