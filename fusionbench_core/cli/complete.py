"""Names for shell completion, from records alone: torch stays out, and errors stay silent."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from fusionbench_core.errors import FusionError


def names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every registered name, short ones before full ones."""
    from fusionbench_core.registry import KINDS, default_registry

    try:
        registry = default_registry()
    except FusionError:
        return []
    found = dict.fromkeys(name for kind in KINDS if kind != "config" for name in registry.names(kind))
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def plugins(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The namespaces of installed plugins."""
    from fusionbench_core.plugins import find

    return [CompletionItem(plugin.namespace) for plugin in find() if plugin.namespace.startswith(incomplete)]


def overrides(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`method=…` and the presets of the other groups, for commands that take overrides."""
    from fusionbench_core.config.overrides import GROUPS
    from fusionbench_core.config.presets import Presets
    from fusionbench_core.registry import default_registry

    group, sign, start = incomplete.partition("=")
    if not sign:
        return [CompletionItem(f"{name}=") for name in GROUPS if name.startswith(incomplete)]
    try:
        registry = default_registry()
        choices = Presets.over(None, registry.all("config")).options(group) if group in GROUPS else []
    except FusionError:
        return []
    choices += registry.names("method") if group == "method" else []
    return [CompletionItem(f"{group}={choice}") for choice in choices if choice.startswith(start)]
