"""Configs are data: nothing in them may name code, read the environment, or be larger than a config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from fusionbench_core.errors import ConfigError

_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")


def check(config: Any) -> None:
    """Refuse Python paths and resolvers in an unresolved config.

    Raises:
        ConfigError: A key is `_target_`, or a value holds a resolver such as `${oc.env:HOME}`.
    """
    for key, value in _leaves(config, ""):
        name = key.rpartition(".")[2]
        if name == "_target_":
            raise ConfigError(
                "configs name registered things, never Python paths",
                key=key,
                value=value,
                fix="write `name:` and the name that `fb list` shows, e.g. name: ties_merging",
            )
        found = _RESOLVER.search(value) if isinstance(value, str) else None
        if found:
            raise ConfigError(
                f"the resolver {found.group(1)!r} is not available in configs",
                key=key,
                value=value,
                why="a config means the same on every machine",
                fix="write the value, refer to a key as ${section.key}, or set it on the command line",
            )


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield inner, str(value)
            else:
                yield from _leaves(value, inner)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{key}[{index}]")
    else:
        yield key, node


def refuse_silent_trust(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Refuse a config that lets a model's own Python files run, unless the user typed that.

    Raises:
        ConfigError: if `trust_remote_code` is on, and no override says so.
    """
    for key, value in _trusting(values, ""):
        if value not in (False, None) and not any(_says(word, key) for word in overrides):
            raise ConfigError(
                "a config file may not switch on trust_remote_code",
                config=key,
                why="it would run Python files that come with a model",
                fix=f"type it yourself, if you have read them: {key}={value}",
            )


def _says(word: str, key: str) -> bool:
    """Whether an override switches on trust at `key`: by that key, or within a value for one above it."""
    typed, _, value = word.lstrip("+").partition("=")
    if typed == key:
        return True
    said = value.replace(" ", "").lower()
    return key.startswith(f"{typed}.") and re.search(r"trust_remote_code:(?!false|null)", said) is not None


def _trusting(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        inner = f"{key}.{name}" if key else str(name)
        if name == "trust_remote_code":
            yield inner, value
        yield from _trusting(value, inner)
