"""A config of mergekit, read: every key is checked, and those that mergekit would ignore are noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fb_merging.mergekit.reference import Model, read_model
from fusionbench_core import ConfigError, did_you_mean

_SETTINGS = ("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template")
_TOP = (
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    *_SETTINGS,
    "name",
    "out_path",
)
_SOURCE = ("model", "parameters")
_SLICE_SOURCE = ("model", "layer_range", "parameters")
_SLICE = ("sources", "base_model", "parameters", "residual_weight")
_MODULE = ("models", "slices", "parameters")

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One input of a merge: a model, or some of its layers, and its own parameters."""

    model: Model
    parameters: Parameters
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Block:
    """Inputs that are merged with each other: whole models, layers of them, or one module of them.

    Attributes:
        where: Key of the block, for messages.
        sources: The inputs.
        scopes: Parameters of the block, from the closest to the most general.
        base: Its base model.
        module: Name of its module; None for the whole model.
    """

    where: str
    sources: tuple[Source, ...]
    scopes: tuple[Parameters, ...]
    base: Model | None
    module: str | None = None


@dataclass
class Document:
    """One merge.

    Attributes:
        method: mergekit's name of the method.
        blocks: What is merged with what; slices are in the order of the layers.
        base: The base model.
        settings: `dtype`, `out_dtype`, `tokenizer_source`, `tokenizer`, `chat_template`, as they are.
        name: What other documents call the result.
        out_path: The same, in configs of older versions.
        notes: Pairs of key and remark: what mergekit would ignore without a word.
    """

    method: str
    blocks: tuple[Block, ...]
    base: Model | None
    settings: Mapping[str, Any]
    name: str | None = None
    out_path: str | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def models(self) -> tuple[Model, ...]:
        """All models, in the order of the config, the base last."""
        each = [source.model for block in self.blocks for source in block.sources]
        bases = [block.base for block in self.blocks if block.base is not None]
        return tuple(dict.fromkeys([*each, *bases]))


def read_document(said: Any) -> Document:
    """Read one YAML document.

    Raises:
        ConfigError: naming the key that is wrong, missing or misspelt.
    """
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"a config of mergekit is a mapping, not {type(said).__name__}",
            fix="it starts with merge_method: and models: or slices:",
        )
    notes: list[tuple[str, str]] = []
    reader = _Reader(notes)
    reader.check_keys(said, _TOP, "")
    method = said.get("merge_method")
    if not isinstance(method, str):
        raise ConfigError("`merge_method` is missing", fix="add it, e.g. merge_method: ties")
    base = None if said.get("base_model") is None else read_model(said["base_model"], "base_model")
    given = [key for key in ("models", "slices", "modules") if said.get(key)]
    if len(given) != 1:
        raise ConfigError(
            "give exactly one of `models`, `slices` and `modules`",
            why=f"it has {' and '.join(given) or 'none'}",
        )
    overall = reader.parameters(said, "parameters")
    blocks: list[Block] = []
    if given == ["modules"]:
        for module, inner in reader.mapping(said["modules"], "modules").items():
            where = f"modules.{module}"
            reader.check_keys(inner, _MODULE, where)
            own = reader.parameters(inner, f"{where}.parameters")
            blocks += reader.blocks(inner, where, base, (own, overall), str(module))
    else:
        blocks += reader.blocks(said, "", base, (overall,), None)
    return Document(
        method=method,
        blocks=tuple(blocks),
        base=base,
        settings={key: said.get(key) for key in _SETTINGS},
        name=said.get("name"),
        out_path=said.get("out_path"),
        notes=notes,
    )


class _Reader:
    """Reads parts of a document, and keeps notes."""

    def __init__(self, notes: list[tuple[str, str]]) -> None:
        self._notes = notes

    def blocks(
        self,
        said: Mapping[str, Any],
        where: str,
        base: Model | None,
        scopes: tuple[Parameters, ...],
        module: str | None,
    ) -> list[Block]:
        prefix = f"{where}." if where else ""
        if said.get("models"):
            sources = tuple(
                self._source(each, f"{prefix}models.{number}", _SOURCE)
                for number, each in enumerate(self._list(said["models"], f"{prefix}models"))
            )
            return [Block(f"{prefix}models", sources, scopes, base, module)]
        return [
            self._slice(each, f"{prefix}slices.{number}", base, scopes, module)
            for number, each in enumerate(self._list(said.get("slices"), f"{prefix}slices"))
        ]

    def _slice(
        self,
        said: Any,
        where: str,
        base: Model | None,
        scopes: tuple[Parameters, ...],
        module: str | None,
    ) -> Block:
        self.check_keys(said, _SLICE, where)
        if said.get("residual_weight") is not None:
            self._notes.append(
                (f"{where}.residual_weight", "mergekit reads this key and does nothing with it")
            )
        sources = tuple(
            self._source(each, f"{where}.sources.{number}", _SLICE_SOURCE)
            for number, each in enumerate(self._list(said.get("sources"), f"{where}.sources"))
        )
        lengths = {source.layers[1] - source.layers[0] for source in sources if source.layers}
        if len(lengths) > 1:
            raise ConfigError(
                "the sources of a slice have different numbers of layers",
                config=where,
                why=f"they have {', '.join(map(str, sorted(lengths)))}",
                fix="make all layer_range of this slice as long as each other",
            )
        own = self.parameters(said, f"{where}.parameters")
        other = said.get("base_model")
        base = base if other is None else read_model(other, f"{where}.base_model")
        return Block(where, sources, (own, *scopes), base, module)

    def _source(self, said: Any, where: str, keys: Sequence[str]) -> Source:
        self.check_keys(said, keys, where)
        if said.get("model") is None:
            raise ConfigError("a model is missing", config=f"{where}.model", fix="name it: model: ./path")
        layers = None
        if "layer_range" in keys:
            layers = _range(said.get("layer_range"), f"{where}.layer_range")
        return Source(
            read_model(said["model"], f"{where}.model"), self.parameters(said, f"{where}.parameters"), layers
        )

    def parameters(self, said: Mapping[str, Any], where: str) -> Parameters:
        return self.mapping(said.get("parameters") or {}, where)

    def mapping(self, said: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(said, Mapping):
            raise ConfigError(f"`{where}` must be a mapping, not {said!r}", config=where)
        return said

    def check_keys(self, said: Any, known: Iterable[str], where: str) -> None:
        """Refuse keys that look misspelt; note others, which mergekit ignores."""
        for key in self.mapping(said, where or "the config"):
            if key in known:
                continue
            path = f"{where}.{key}" if where else str(key)
            if hint := did_you_mean(str(key), known):
                raise ConfigError(
                    f"mergekit has no key {key!r} here", config=path, why="it would ignore it", fix=hint
                )
            self._notes.append((path, "mergekit has no such key, and ignores it"))

    def _list(self, said: Any, where: str) -> list[Any]:
        if not isinstance(said, list) or not said:
            raise ConfigError(f"`{where}` must be a list with something in it", config=where)
        return said


def _range(said: Any, where: str) -> tuple[int, int]:
    if isinstance(said, (list, tuple)) and len(said) == 2 and all(type(each) is int for each in said):
        start, stop = said
        if 0 <= start < stop:
            return start, stop
    raise ConfigError(
        f"{said!r} is no range of layers" if said is not None else "`layer_range` is missing",
        config=where,
        fix="give the first layer, counted from 0, and the one after the last: layer_range: [0, 16]",
    )
