"""mergekit's `tokenizer_source` and `tokenizer`, as the pool's `tokenizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fb_merging.mergekit.reference import Model, read_model
from fusionbench_core import ConfigError, did_you_mean

RESERVED = ("base", "union", "mean", "zero")
"""What no model can be called where there is a tokenizer."""

_KEYS = ("source", "tokens", "pad_to_multiple_of")
_TOKEN_KEYS = ("source", "force")


def tokenizer_of(settings: Mapping[str, Any], names: Mapping[Model, str]) -> dict[str, Any] | None:
    """The section, or None where the tokenizer of the reference model is kept as it is.

    Args:
        settings: The document's settings.
        names: The pool's names of the models, `base` for the base.

    Raises:
        ConfigError: if a key or a model is not known.
    """
    source, whole = settings["tokenizer_source"], settings["tokenizer"]
    if source is not None and whole is not None:
        raise ConfigError(
            "`tokenizer_source` and `tokenizer` exclude each other",
            config="tokenizer",
            fix="remove one of them",
        )
    if source is None and whole is None:
        return None
    if source is not None:
        return {"source": _source(source, names, "tokenizer_source"), "padding": "drop"}
    _check(whole, _KEYS, "tokenizer")
    assert isinstance(whole, Mapping)
    section: dict[str, Any] = {
        "source": _source(whole.get("source", "union"), names, "tokenizer.source"),
        "padding": "drop",
    }
    tokens = {
        str(token): _rule(said, names, f"tokenizer.tokens.{token}")
        for token, said in (whole.get("tokens") or {}).items()
    }
    if tokens:
        section["tokens"] = tokens
    if whole.get("pad_to_multiple_of") is not None:
        section["pad_to_multiple_of"] = whole["pad_to_multiple_of"]
    return section


def _source(said: Any, names: Mapping[Model, str], where: str) -> str:
    if said == "union":
        return "union"
    if said == "base":
        # Without a base, mergekit takes one of the models.
        return "base" if "base" in names.values() else next(iter(names.values()))
    return _name(said, names, where)


def _rule(said: Any, names: Mapping[Model, str], where: str) -> dict[str, Any]:
    _check(said, _TOKEN_KEYS, where)
    source, force = said.get("source"), {"force": True} if said.get("force") else {}
    if not isinstance(source, Mapping) or "kind" not in source:
        if source is None:
            raise ConfigError(
                "the row of a token has no source", config=where, fix="name a model, or {kind: zero}"
            )
        return {"source": _name(source, names, where), **force}
    if source["kind"] == "zero":
        return {"source": "zero", **force}
    if source.get("token") is None:
        raise ConfigError(
            "a row cannot be named by the id of its token",
            config=f"{where}.source.token_id",
            fix="write the token: {kind: model_token, model: PATH, token: …}",
        )
    return {"source": _name(source.get("model"), names, where), "token": source["token"], **force}


def _name(said: Any, names: Mapping[Model, str], where: str) -> str:
    model = read_model(said, where)
    if model not in names:
        paths = [each.path for each in names]
        raise ConfigError(
            f"{model.path} is no model of this merge",
            config=where,
            fix=did_you_mean(model.path, paths) or f"choose from union, base, {', '.join(paths)}",
        )
    return names[model]


def _check(said: Any, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(said, Mapping):
        raise ConfigError(f"`{where}` must be a mapping, not {said!r}", config=where)
    for key in said:
        if key not in keys:
            raise ConfigError(
                f"mergekit has no key {key!r} here",
                config=f"{where}.{key}",
                fix=did_you_mean(str(key), keys) or f"known keys: {', '.join(keys)}",
            )
