"""From the `modelpool` section of a config to a pool of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fusionbench_core.config.errors import explain
from fusionbench_core.errors import ConfigError, NotFound
from fusionbench_core.layers import layer_pattern
from fusionbench_core.pools.aligned import AlignedSource, VocabularyAlignment
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.pools.reference import resolve_path
from fusionbench_core.pools.scope import Scope
from fusionbench_core.pools.source import ModelSource
from fusionbench_core.pools.stack import LayerStack, StackPart
from fusionbench_core.pools.tokenizer import BASE, TokenizerConfig
from fusionbench_core.registry import Registry
from fusionbench_core.suggest import did_you_mean

BASE_ALIAS = "_pretrained_"
"""Name under which FusionBench's configs list the base among the models."""

Reference = str | dict[str, Any]

_TAKEN = ("pretrained", "individual")
"""Baselines that are measured of the base and the models themselves."""


class PoolConfig(BaseModel):
    """The `modelpool` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | dict[str, Any] | None = Field(
        default=None,
        description="model source of every reference that names none: a name, or {name: …, parameters}",
    )
    base: Reference | None = Field(
        default=None, description="the pre-trained model the others were fine-tuned from"
    )
    models: dict[str, Reference] = Field(
        min_length=1,
        description="name -> reference: a path, pkg://PACKAGE/PATH, a hub id, {source: …, path: …}, or "
        "layers of several: {slices: [{model: reference, layers: [start, stop]}, …]}",
    )
    scope: Scope = Field(default=Scope(), description="which tensors are merged")
    heads: tuple[str, ...] = Field(
        default=(), description="shell patterns of task-specific tensors, never merged"
    )
    data: dict[str, str] = Field(
        default={}, description="model name -> its task, where that has another name"
    )
    baselines: dict[str, Reference] = Field(
        default={},
        description="name -> reference of a model to compare with, e.g. multi_task: never fused; "
        "check_baselines=true measures it on every task",
    )
    layer_names: str | None = Field(
        default=None,
        description="how the layers' tensors are called, where the number is not found, or there are several "
        "stacks: e.g. decoder.stages.{layer}.",
    )
    chat_template: str | None = Field(
        default=None,
        description="chat template of the result: Jinja, or `auto` for that of most models; null: the base's",
    )

    tokenizer: TokenizerConfig | None = Field(
        default=None,
        description="align models of different vocabularies token by token: `base`, a model's name, `union`, "
        "or a section with more",
    )

    @field_validator("layer_names")
    @classmethod
    def _has_a_number(cls, value: str | None) -> str | None:
        layer_pattern(value)
        return value


def build_pool(section: Mapping[str, Any], registry: Registry, *, file: Path | None = None) -> ModelPool:
    """The pool that a `modelpool` section describes. No checkpoint is opened yet.

    Raises:
        ConfigError: listing everything that is wrong with the section.
        UnknownName: if a source is not registered.
    """
    try:
        config = PoolConfig.model_validate(_with_base(section))
    except ValidationError as error:
        raise explain(error, PoolConfig, where="modelpool", file=file) from error
    reader = _SourceReader(config, registry, file)
    base = (
        None
        if config.base is None
        else PooledModel("_base_", source=reader.read(config.base, "modelpool.base"))
    )
    models = {
        name: PooledModel(name, source=reader.read(reference, f"modelpool.models.{name}"))
        for name, reference in config.models.items()
    }
    for name in config.data:
        if name not in models:
            raise ConfigError(
                f"`modelpool.data` names {name!r}, which is no model of the pool",
                fix=did_you_mean(name, list(models)) or f"the models are {', '.join(models)}",
            )
    if config.tokenizer is not None:
        base, models = _aligned(config.tokenizer, base, models)
    return ModelPool(
        models,
        base,
        scope=config.scope.model_dump(),
        heads=config.heads,
        data=config.data,
        layer_names=config.layer_names,
        chat_template=config.chat_template,
        baselines=_baselines(config, reader),
    )


def _baselines(config: PoolConfig, reader: _SourceReader) -> dict[str, PooledModel]:
    for name in config.baselines:
        if name in config.models or name in _TAKEN:
            raise ConfigError(
                f"a baseline cannot be called {name!r}",
                config=f"modelpool.baselines.{name}",
                why="a model of the pool is called so" if name in config.models else "other results are",
                fix="give it another name, e.g. multi_task",
            )
    return {
        name: PooledModel(name, source=reader.read(reference, f"modelpool.baselines.{name}"))
        for name, reference in config.baselines.items()
    }


def _aligned(
    config: TokenizerConfig, base: PooledModel | None, models: Mapping[str, PooledModel]
) -> tuple[PooledModel | None, dict[str, PooledModel]]:
    """The same models, with one vocabulary."""
    config.check(list(models), base is not None)
    everyone = {**({BASE: base} if base is not None else {}), **models}
    sources = {name: model.source for name, model in everyone.items() if model.source is not None}
    alignment = VocabularyAlignment(config, sources, next(iter(everyone)))
    aligned = {
        name: PooledModel(
            model.name,
            source=AlignedSource(path=source.path, model=source, name=name, alignment=alignment),
        )
        for name, model in everyone.items()
        if (source := model.source) is not None
    }
    return aligned.pop(BASE) if base is not None else None, aligned


def _with_base(section: Mapping[str, Any]) -> dict[str, Any]:
    """`models._pretrained_` moved to `base`."""
    section = dict(section)
    models = section.get("models")
    if isinstance(models, Mapping) and BASE_ALIAS in models:
        if section.get("base") is not None:
            raise ConfigError(
                f"the base is given twice: `modelpool.base` and `modelpool.models.{BASE_ALIAS}`"
            )
        section["models"] = {name: reference for name, reference in models.items() if name != BASE_ALIAS}
        section["base"] = models[BASE_ALIAS]
    return section


class _SourceReader:
    """Turns references into sources, with the pool's default source and parameters."""

    def __init__(self, config: PoolConfig, registry: Registry, file: Path | None) -> None:
        default = config.source
        self._default = {"name": default} if isinstance(default, str) else dict(default or {})
        self._layer_names = config.layer_names
        self._registry = registry
        self._file = file

    def read(self, reference: Reference, where: str) -> ModelSource:
        if isinstance(reference, dict) and "slices" in reference:
            return self._stack(reference, where)
        own = {"path": reference} if isinstance(reference, str) else dict(reference)
        name = own.pop("source", None)
        parameters = own
        if name is None:
            name = self._default.get("name")
            parameters = {**{k: v for k, v in self._default.items() if k != "name"}, **own}
        path = str(parameters.get("path", ""))
        cls = self._registry.load("source", name) if name else recognise(path, self._registry, where)
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            raise explain(error, cls, where=where, file=self._file) from error

    def _stack(self, reference: dict[str, Any], where: str) -> LayerStack:
        try:
            said = _Slices.model_validate(reference)
        except ValidationError as error:
            raise explain(error, _Slices, where=where, file=self._file) from error
        parts = tuple(
            StackPart(model=self.read(each.model, f"{where}.slices.{number}.model"), layers=each.layers)
            for number, each in enumerate(said.slices)
        )
        path = " + ".join(f"{part.model.path}[{part.layers[0]}:{part.layers[1]}]" for part in parts)
        return LayerStack(path=path, slices=parts, layer_names=self._layer_names)


class _Slice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Reference
    layers: tuple[int, int]

    @field_validator("layers")
    @classmethod
    def _is_a_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] < value[1]:
            raise ValueError("give the first layer, counted from 0, and the one after the last")
        return value


class _Slices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    slices: tuple[_Slice, ...] = Field(min_length=1)


def recognise(path: str, registry: Registry, where: str | None = None) -> type[ModelSource]:
    """The source that recognises a path.

    Raises:
        NotFound: if there is nothing at a local path.
        ConfigError: if none does, or several do.
    """
    records = registry.all("source")
    found = [record for record in records if registry.resolve(record).recognises(path)]
    if len(found) == 1:
        return registry.resolve(found[0])
    names = ", ".join(record.full_name for record in (found or records))
    if not found and resolve_path(path) is None:
        raise NotFound(
            f"there is nothing at {path!r}",
            config=where,
            why="it is no local path; it may be a hub id, but those do not say which source reads them",
            fix="check the path, or name the source of the hub id: `--source NAME`, `modelpool.source: NAME`",
        )
    raise ConfigError(
        f"{'no' if not found else 'more than one'} model source recognises {path!r}",
        config=where,
        why=f"{'asked' if not found else 'recognised by'}: {names or 'no source is installed'}",
        fix="name one: `--source NAME`, or `modelpool.source: NAME`; `fb list sources` shows them",
    )
