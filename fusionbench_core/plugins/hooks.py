"""What a module implements of the hooks, and what is wrong with that."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import pluggy

from fusionbench_core import hookspecs
from fusionbench_core.hookspecs import PROJECT
from fusionbench_core.plugins.plugin import HookImplementation
from fusionbench_core.suggest import did_you_mean


def implementations(module: ModuleType) -> dict[str, HookImplementation]:
    """Hook -> what implements it, of a module in which :func:`problems` finds none."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    return {
        caller.name: HookImplementation(
            hook=caller.name,
            function=implementation.function,
            arguments=(*implementation.argnames, *implementation.kwargnames),
        )
        for caller in manager.get_hookcallers(module) or ()
        for implementation in caller.get_hookimpls()
        if caller.has_spec()
    }


def problems(module: ModuleType) -> Iterator[str]:
    """Hooks of a module that nothing would call, or that could not be called, one line each."""
    manager = pluggy.PluginManager(PROJECT)
    specified = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("fb_")}
    for name, function in vars(module).items():
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            if name in specified and getattr(function, "__module__", None) == module.__name__:
                yield f"{name} is not marked with @hookimpl, so it would never be called"
            continue
        name = options.get("specname") or name
        if name not in specified:
            if not options["optionalhook"]:
                hint = did_you_mean(name, list(specified)) or f"known hooks: {', '.join(specified)}"
                yield f"implements the unknown hook {name!r}; {hint}"
        elif options["wrapper"] or options["hookwrapper"]:
            yield f"{name} is a hook wrapper, which FusionBench does not call"
        else:
            known = inspect.signature(specified[name]).parameters
            if extra := [each for each in inspect.signature(function).parameters if each not in known]:
                yield f"{name} has arguments that the hook does not give: {', '.join(extra)}"
