"""The light module: what it declares, and what loading it costs and does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from fusionbench_core.plugins.hooks import problems
from fusionbench_core.records import Record
from fusionbench_core.registry import KINDS
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.package_checks import fresh
from fusionbench_core.testing.plugin_subject import PluginSubject

MOST_MILLISECONDS = 50.0
"""How long the light module may take to be imported."""


@check("FP-104", requires=("FP-101",))
def quick(subject: PluginSubject) -> None:
    """Its light module is imported within 50 ms.

    Every `fb` command imports the light module of every plugin that is installed.

    Fix: import in it only the standard library and `fusionbench_core`, and do no work there.
    """
    _ = subject.distribution
    if subject.loaded.heavy:
        raise Inapplicable("it imports heavy packages, which FP-105 tells")
    times = [subject.loaded.milliseconds]
    # A machine that is busy is slow now and then; an import that is slow always is.
    while times[-1] > MOST_MILLISECONDS and len(times) < 3:
        times.append(fresh.loaded(subject).milliseconds)
    if min(times) > MOST_MILLISECONDS:
        raise Violation(
            f"importing {subject.module} takes long",
            measured=f"{min(times):.0f} ms, the least of {len(times)}",
            bound=f"{MOST_MILLISECONDS:.0f} ms",
            reproduce=f"python -X importtime -c 'import {subject.module}'",
        )


@check("FP-105", requires=("FP-101",))
def light(subject: PluginSubject) -> None:
    """Its light module imports no heavy package.

    torch alone takes seconds; `fb --help` and every error message would wait for it.

    Fix: import it in the module that a record's `target` names, not in the one of the entry point.
    """
    _ = subject.distribution
    if subject.loaded.heavy:
        raise Violation(
            f"{subject.module} imports heavy packages",
            measured=", ".join(subject.loaded.heavy),
            bound="none",
            reproduce=f"import sys, {subject.module}; print({subject.loaded.heavy[0]!r} in sys.modules)",
        )


@check("FP-106", requires=("FP-101",))
def pure(subject: PluginSubject) -> None:
    """Its declarations are pure: the same records at every call, nothing printed, written or warned of.

    They run in every command, also in those whose output a program reads.

    Fix: yield constant records, and do nothing else in the light module.
    """
    found = subject.loaded
    if found.cause:
        if subject.plugin is not None and not subject.plugin.local:
            _no_foreign_hooks(subject)
        raise Violation(f"its declarations cannot be read: {found.cause}")
    if not found.same:
        raise Violation("it declares something else when it is asked again")
    for what, shown in (
        ("prints while it loads", found.printed.strip()),
        ("writes files while it loads", ", ".join(found.files)),
        ("warns while it loads", "; ".join(found.warned)),
    ):
        if shown:
            raise Violation(f"it {what}", measured=shown)


@check("FP-107", requires=("FP-101", "FP-106"))
def targets_resolve(subject: PluginSubject) -> None:
    """Everything it declares can be imported.

    A record whose target is missing fails in the middle of a user's run.

    Fix: let `target` read `module:Object`, and depend on all that the module imports.
    """
    from fusionbench_core.errors import PluginBroken

    assert subject.plugin is not None
    for record in _records(subject):
        if not isinstance(record, Record):
            continue
        try:
            found = subject.registry.resolve(record)
        except PluginBroken as error:
            raise Violation(
                f"{record.full_name} cannot be imported: {error.why}", measured=record.target
            ) from None
        if not callable(found):
            raise Violation(f"{record.full_name} names no class, function or command", measured=record.target)


@check("FP-108", requires=("FP-101",))
def known_hooks(subject: PluginSubject) -> None:
    """It implements hooks that exist, with arguments that exist, and marks them.

    A hook with a slip in its name is never called, and nothing says so.

    Fix: see the page about hooks for their names and arguments; mark an implementation with `@hookimpl`.
    """
    for problem in problems(importlib.import_module(subject.module)):
        raise Violation(problem)


@check("FP-109")
def no_conflicts(subject: PluginSubject) -> str | None:
    """No name of it is taken by another plugin, or given twice.

    Where two provide the same full name, neither can be used.

    Fix: rename all but one; a namespace belongs to one distribution.
    """
    plugin = subject.plugin
    assert plugin is not None
    if plugin.status == "conflict":
        raise Violation(plugin.cause)
    for kind in KINDS:
        for name, records in subject.registry.conflicts(kind).items():
            owners = [record.origin for record in records if record.origin]
            if any(owner.namespace == plugin.namespace for owner in owners):
                who = ", ".join(sorted({owner.distribution for owner in owners}))
                raise Violation(f"the {kind} {name} is declared {len(records)} times, by {who}")
    shared = sorted(_shared_names(subject))
    if shared:
        return f"other plugins use the same short names, so users must write full ones: {', '.join(shared)}"
    return None


@check("FP-110", level="full", requires=("FP-101", "FP-106", "FP-107"))
def imports_change_nothing(subject: PluginSubject) -> None:
    """Importing what it declares changes no global state.

    Random states, thread counts, default dtypes, warning filters and the environment belong to the user.

    Fix: move such settings into the code that needs them, and put them back afterwards.
    """
    found = subject.resolved
    if found.error:
        raise Violation(f"its modules cannot be imported in a fresh process: {found.error}")
    if found.changed:
        raise Violation("importing it changes global state", measured=", ".join(found.changed))


def _records(subject: PluginSubject) -> Iterator:
    assert subject.plugin is not None
    return (record for records in subject.plugin.records.values() for record in records)


def _shared_names(subject: PluginSubject) -> set[str]:
    assert subject.plugin is not None
    return {
        f"{kind} {record.name}"
        for kind, own in subject.plugin.records.items()
        if kind in ("method", "source", "task")
        for record in own
        for other in subject.registry.all(kind)
        if other.name == record.name and other.full_name != record.full_name
    }


def _no_foreign_hooks(subject: PluginSubject) -> None:
    if any(problems(importlib.import_module(subject.module))):
        raise Inapplicable("it implements hooks that nothing calls, which FP-108 tells")
