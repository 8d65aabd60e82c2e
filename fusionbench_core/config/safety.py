"""Configs are data: nothing in them may name code, read the environment, or be larger than a config."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
