"""Names to records, records to objects.

A name is full (`merging/ties_merging`) or short (`ties_merging`, while only one plugin provides it).
Two providers of one full name: neither is used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fusionbench_core.errors import (
    FusionError,
    NameConflict,
    NotInstalled,
    PluginBroken,
    PluginIncompatible,
    UnknownName,
)
from fusionbench_core.hookspecs import DECLARATIONS
from fusionbench_core.known import distribution_of
from fusionbench_core.plugins import Plugin, Plugins, installed_plugins
from fusionbench_core.plugins.loading import describe
from fusionbench_core.records import Record
from fusionbench_core.suggest import did_you_mean

KINDS = tuple(DECLARATIONS.values())
"""`method`, `source`, `task`, `statistic`, `builder`, `config`, `reporter`, `command`, `converter`,
`check`."""


class Registry:
    """Everything that the usable plugins declare.

    Args:
        plugins: All plugins, the unusable ones too, so that an error can say why a name is missing.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = plugins if isinstance(plugins, Plugins) else Plugins(tuple(plugins))
        self._providers: dict[str, dict[str, list[Any]]] = {kind: {} for kind in KINDS}
        for plugin in self.plugins.usable:
            for kind, declared in plugin.records.items():
                for record in declared:
                    self._providers[kind].setdefault(_key(record), []).append(record)

    def all(self, kind: str) -> list[Any]:
        """The usable records of a kind, sorted by full name; those in conflict are left out."""
        providers = self._of(kind)
        return [providers[name][0] for name in sorted(providers) if len(providers[name]) == 1]

    def conflicts(self, kind: str) -> dict[str, list[Any]]:
        """Full names that are declared more than once, and by whom."""
        return {name: found for name, found in self._of(kind).items() if len(found) > 1}

    def find(self, kind: str, name: str) -> Any:
        """The record that a short or full name means.

        Raises:
            UnknownName: No plugin provides it; the error suggests names, or what to install.
            NameConflict: Several do.
            PluginBroken: Only a plugin that cannot be used provides it; `PluginIncompatible` likewise.
        """
        providers = self._of(kind)
        full = [key for key in providers if name in (key, key.rpartition("/")[2])]
        if len(full) > 1:
            raise NameConflict(
                f"the {kind} name {name!r} is ambiguous",
                why=f"provided by {', '.join(sorted(full))}",
                fix="use one of the full names",
            )
        if not full:
            raise self._missing(kind, name)
        found = providers[full[0]]
        if len(found) > 1:
            who = "; ".join(f"{record.origin.distribution} ({_target(record)})" for record in found)
            raise NameConflict(
                f"the {kind} {full[0]!r} is declared {len(found)} times, so none is used",
                why=f"by {who}",
                fix="the plugin's author must rename all but one",
            )
        return found[0]

    def resolve(self, record: Record) -> Any:
        """Import what a record names.

        Raises:
            PluginBroken: The import fails, or the module holds no such object.
        """
        module, _, path = record.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for attribute in path.split("."):
                found = getattr(found, attribute)
        except FusionError:
            raise
        except (Exception, SystemExit) as error:
            origin = record.origin
            who = f"{origin.distribution} {origin.version}" if origin else "unknown"
            raise PluginBroken(
                f"{record.full_name} cannot be imported",
                plugin=who,
                target=record.target,
                why=describe(error),
                fix=self._ways_out(record, error),
            ) from error
        return found

    def load(self, kind: str, name: str) -> Any:
        """Find and resolve in one step. Raises what :meth:`find` and :meth:`resolve` raise."""
        return self.resolve(self.find(kind, name))

    def search(self, text: str) -> list[tuple[str, Any]]:
        """`(kind, record)` pairs that hold every word of `text` in name, summary, tags or paper."""
        words = text.lower().split()
        hits = []
        for kind in KINDS:
            for record in self.all(kind):
                hay = _searchable(record)
                if all(word in hay for word in words):
                    in_name = sum(word in record.name for word in words) if isinstance(record, Record) else 0
                    hits.append((-in_name, KINDS.index(kind), _key(record), kind, record))
        return [(kind, record) for *_, kind, record in sorted(hits, key=lambda hit: hit[:3])]

    def names(self, kind: str) -> list[str]:
        """Every name that :meth:`find` accepts: short ones that are unique, then full ones."""
        full = [_key(record) for record in self.all(kind)]
        short = [key.rpartition("/")[2] for key in self._of(kind)]
        return [*sorted(name for name in set(short) if short.count(name) == 1), *full]

    def _of(self, kind: str) -> dict[str, list[Any]]:
        try:
            return self._providers[kind]
        except KeyError:
            raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(KINDS)}") from None

    def _missing(self, kind: str, name: str) -> FusionError:
        namespace, _, short = name.rpartition("/")
        for plugin in self.plugins:
            if plugin.status == "ok":
                continue
            declared = {record.name for record in plugin.records.get(kind, ()) if isinstance(record, Record)}
            known = distribution_of(kind, short)
            if (
                plugin.namespace in (namespace, short)
                or short in declared
                or known in plugin.distribution.split(", ")
            ):
                return self._unusable(kind, name, plugin)
        fix = did_you_mean(name, [known for known in self.names(kind) if ("/" in known) == bool(namespace)])
        missing = distribution_of(kind, name)
        if missing is not None and not self._installed(missing):
            return NotInstalled(
                f"the {kind} {name!r} is provided by {missing}, which is not installed",
                fix=f"pip install {missing}",
            )
        foreign = namespace and namespace not in {plugin.namespace for plugin in self.plugins}
        return (NotInstalled if foreign else UnknownName)(
            f"no {kind} is called {name!r}",
            why=self._suspicion(),
            fix=f"{fix}\n{_listing(kind)}" if fix else _listing(kind),
        )

    def _installed(self, distribution: str) -> bool:
        return any(distribution in plugin.distribution.split(", ") for plugin in self.plugins)

    def _suspicion(self) -> str | None:
        lame = [f"{p.namespace} ({p.status})" for p in self.plugins if p.status not in ("ok", "disabled")]
        return f"no working plugin provides it; not working: {', '.join(lame)}" if lame else None

    def _unusable(self, kind: str, name: str, plugin: Plugin) -> FusionError:
        error = PluginIncompatible if plugin.status == "incompatible" else PluginBroken
        return error(
            f"the {kind} {name!r} belongs to the plugin {plugin.namespace}, which is {plugin.status}",
            plugin=f"{plugin.distribution} {plugin.version}",
            why=plugin.cause,
            fix=plugin.fix,
        )

    def _ways_out(self, record: Record, error: BaseException) -> str:
        plugin = self.plugins.get(record.origin.namespace) if record.origin else None
        if plugin is None:
            return "check the record's target"
        if plugin.local:
            return plugin.fix
        others = (
            f"upgrade the plugin: pip install --upgrade {plugin.distribution}\n"
            f"or switch it off: fb plugin disable {plugin.namespace}"
        )
        module = sys.modules.get(record.target.partition(":")[0])
        if isinstance(error, AttributeError) and module is not None and error.obj is module:
            name = error.name or ""
            fix = did_you_mean(name, vars(module)) or f"{module.__file__} defines no {name}"
            return f"if the plugin is yours, mend the record's target: {fix}\nor {others}"
        if not isinstance(error, ImportError):
            return f"see where it fails: FB_DEBUG=1\nor {others}"
        missing = (error.name or "").partition(".")[0]
        if missing == plugin.module.partition(".")[0]:
            return f"if the plugin is yours, mend the record's target\nor {others}"
        return f"install what is missing: pip install {missing or plugin.distribution}\nor {others}"


def default_registry() -> Registry:
    """The registry over the plugins of this process, built once."""
    return _registry(installed_plugins())


@lru_cache(maxsize=1)
def _registry(plugins: Plugins) -> Registry:
    return Registry(plugins)


def _key(record: Any) -> str:
    if isinstance(record, Record):
        return record.full_name
    return f"{record.origin.namespace}/{record.package}" if record.origin else record.package


def _target(record: Any) -> str:
    return record.target if isinstance(record, Record) else record.package


def _searchable(record: Any) -> str:
    parts = [_key(record)]
    if isinstance(record, Record):
        parts += [record.name.replace("_", " "), record.summary, *record.tags, record.target]
        parts.append(str(getattr(record, "paper", None) or ""))
    return " ".join(parts).lower()


def _listing(kind: str) -> str:
    return f"fb list {kind}s shows what there is"
