"""Which plugins are installed, read from metadata alone: nothing is imported, nothing can fail.

Facts are kept in a small cache file, keyed by the import path and its modification times, because
reading the metadata of every installed distribution takes longer than all else that `fb --help` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace

import fusionbench_core
from fusionbench_core.hookspecs import PROJECT
from fusionbench_core.plugins import discovery_cache
from fusionbench_core.plugins.plugin import Plugin

CORE = "fusionbench-core"
_SEPARATORS = re.compile(r"[-_.]+")
_IS_CORE = re.compile(r"fusionbench[-_.]+core(?![\w.-])", re.IGNORECASE)


def find(*, cached: bool = True) -> list[Plugin]:
    """All installed plugins, sorted by namespace: `found`, or unusable with the reason.

    Args:
        cached: Whether facts of an earlier process may be used, as long as no directory on the
            import path has changed since.
    """
    if cached and (known := discovery_cache.read_plugins()) is not None:
        return known
    plugins = judge(_read())
    discovery_cache.write_plugins(plugins)
    return plugins


def judge(candidates: Iterable[Plugin]) -> list[Plugin]:
    """Mark namespaces that several distributions claim, names that do not fit, and version trouble."""
    claims: dict[str, list[Plugin]] = {}
    for plugin in candidates:
        claims.setdefault(plugin.namespace, []).append(plugin)
    plugins = []
    for namespace in sorted(claims):
        first, *others = claims[namespace]
        plugins.append(_conflict([first, *others]) if others else _check(first))
    return plugins


def namespace_of(distribution: str) -> str:
    """The namespace that a distribution may claim: its name without `fb-`.

    >>> namespace_of("fb-clip-tasks")
    'clip_tasks'
    """
    return _SEPARATORS.sub("_", distribution.lower()).removeprefix("fb_")


def _conflict(claimants: list[Plugin]) -> Plugin:
    who = sorted(f"{plugin.distribution} {plugin.version}" for plugin in claimants)
    return replace(
        claimants[0],
        distribution=", ".join(sorted({plugin.distribution for plugin in claimants})),
        version=", ".join(sorted({plugin.version for plugin in claimants})),
        module=", ".join(sorted({plugin.module for plugin in claimants})),
        metadata=tuple(path for plugin in claimants for path in plugin.metadata),
        status="conflict",
        cause=f"the namespace is claimed by {len(who)} entry points: {'; '.join(who)}",
    )


def _check(plugin: Plugin) -> Plugin:
    expected = namespace_of(plugin.distribution)
    if plugin.namespace != expected:
        cause = (
            f"the entry point is named {plugin.namespace!r}; {plugin.distribution} must name it {expected!r}"
        )
        return replace(plugin, status="broken", cause=cause)
    if plugin.requires:
        from packaging.specifiers import SpecifierSet

        running = fusionbench_core.__version__
        if not SpecifierSet(plugin.requires).contains(running, prereleases=True):
            cause = f"asks for {CORE}{plugin.requires}; {running} is running"
            return replace(plugin, status="incompatible", cause=cause)
    return plugin


def _read() -> list[Plugin]:
    import importlib_metadata

    return [_candidate(point) for point in importlib_metadata.entry_points(group=PROJECT)]


def _candidate(point) -> Plugin:
    distribution = point.dist
    directory = getattr(distribution, "_path", None)
    plugin = Plugin(
        namespace=point.name,
        distribution=distribution.name,
        version=distribution.version,
        module=point.value.partition(":")[0].strip(),
        metadata=(
            (os.path.join(directory, "entry_points.txt"), os.path.join(directory, "METADATA"))
            if directory is not None
            else ()
        ),
    )
    try:
        return replace(plugin, requires=_core_range(distribution.requires or ()))
    except ValueError as error:
        return replace(plugin, status="broken", cause=f"malformed metadata: {error}")


def _core_range(requirements: Iterable[str]) -> str:
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requirements if _IS_CORE.match(text)]
    return ",".join(
        str(requirement.specifier)
        for requirement in parsed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    )
