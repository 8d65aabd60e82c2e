"""What a slow plugin declared, kept between processes.

A plugin whose light module takes longer than it should is imported once; later commands read what it
declared, and import it only when they use it. So `fb list` is as fast with it as without. Plugins that
keep to the rules are never remembered.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from fusionbench_core import records
from fusionbench_core.plugins import discovery_cache, trace
from fusionbench_core.plugins.plugin import HookImplementation, Plugin

SLOW_MS = 50.0
"""From here on a plugin counts as slow; the conformance kit's bound, too."""

_CLASSES = {
    cls.__name__: cls for cls in vars(records).values() if isinstance(cls, type) and is_dataclass(cls)
}


def remembered(plugin: Plugin) -> Plugin | None:
    """The plugin as an earlier process loaded it, or None if it is not known or anything has changed."""
    if trace.enabled():
        return None
    stored = discovery_cache.read(_kind(plugin))
    if stored is None or stored.get("version") != plugin.version or stored.get("module") != plugin.module:
        return None
    try:
        declared = {kind: tuple(map(_decode, each)) for kind, each in stored["records"].items()}
        return replace(
            plugin,
            status=stored["status"],
            cause=stored["cause"],
            traceback=stored["traceback"],
            load_ms=stored["load_ms"],
            printed=stored["printed"],
            records={
                kind: tuple(replace(record, origin=plugin.origin) for record in each)
                for kind, each in declared.items()
            },
            hooks={
                hook: HookImplementation(
                    hook=hook, function=_deferred(plugin.module, name), arguments=tuple(arguments)
                )
                for hook, (name, arguments) in stored["hooks"].items()
            },
        )
    except (KeyError, TypeError, ValueError):
        return None


def remember(plugin: Plugin) -> None:
    """Keep what a plugin declared, if it was slow and everything in it can be kept."""
    if plugin.load_ms < SLOW_MS or trace.enabled():
        return
    module = sys.modules.get(plugin.module)
    hooks = {name: (hook.function.__name__, list(hook.arguments)) for name, hook in plugin.hooks.items()}
    if any(getattr(module, name, None) is None for name, _ in hooks.values()):
        return
    try:
        declared = {
            kind: [_encode(replace(record, origin=None)) for record in each]
            for kind, each in plugin.records.items()
        }
    except TypeError:
        return
    facts = ("version", "module", "status", "cause", "traceback", "load_ms", "printed")
    value = {name: getattr(plugin, name) for name in facts}
    discovery_cache.write(_kind(plugin), {**value, "records": declared, "hooks": hooks}, _depends(plugin))


def _kind(plugin: Plugin) -> str:
    return f"declarations-{plugin.namespace}"


def _depends(plugin: Plugin) -> list[str]:
    """The metadata, and every file of the plugin's own package that was imported."""
    package = plugin.module.partition(".")[0]
    found = list(plugin.metadata)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and (name == package or name.startswith(f"{package}.")):
            found += [file, os.path.dirname(file)]
    return sorted(set(found))


def _deferred(module: str, name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    call.__name__ = name
    return call


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)) or type(value) is str:
        return value
    if isinstance(value, records.Law):
        return {"law": value.value}
    if isinstance(value, (tuple, frozenset)):
        items = [_encode(item) for item in value]
        return {"set": sorted(items, key=str)} if isinstance(value, frozenset) else {"tuple": items}
    if _CLASSES.get(type(value).__name__) is type(value):
        return {
            "record": type(value).__name__,
            "fields": {each.name: _encode(getattr(value, each.name)) for each in fields(value)},
        }
    raise TypeError(f"{value!r:.80} cannot be kept")


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "law" in value:
        return records.Law(value["law"])
    if "tuple" in value:
        return tuple(map(_decode, value["tuple"]))
    if "set" in value:
        return frozenset(map(_decode, value["set"]))
    found = {name: _decode(each) for name, each in value["fields"].items()}
    return _CLASSES[value["record"]](**found)
