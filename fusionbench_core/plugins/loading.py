"""Import one plugin in its own guard and collect what it declares.

pluggy validates the hook signatures; calling the hooks is done here, one implementation at a time,
because one raising implementation would otherwise take all others with it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

from fusionbench_core import records
from fusionbench_core.hookspecs import DECLARATIONS
from fusionbench_core.plugins import trace
from fusionbench_core.plugins.hooks import implementations, problems
from fusionbench_core.plugins.plugin import HookImplementation, Plugin

RECORD_TYPES: dict[str, type] = {
    "method": records.MethodRecord,
    "source": records.SourceRecord,
    "task": records.TaskRecord,
    "statistic": records.StatisticRecord,
    "builder": records.BuilderRecord,
    "config": records.ConfigRecord,
    "reporter": records.ReporterRecord,
    "command": records.CommandRecord,
    "converter": records.ConverterRecord,
    "check": records.CheckRecord,
}
"""Kind -> the class its records must have."""


class _Unusable(Exception):
    """A plugin breaks the rules of hooks; the message is the cause shown to users."""


def load(plugin: Plugin, importer: Callable[[], ModuleType] | None = None) -> Plugin:
    """The plugin with its records, or `broken` with cause and traceback. Never raises.

    Args:
        plugin: One that was found and not switched off.
        importer: What imports its module; by default `importlib.import_module`.
    """
    importer = importer or (lambda: importlib.import_module(plugin.module))
    printed = io.StringIO()
    started = time.perf_counter()
    declared: dict[str, tuple[Any, ...]] = {}
    hooks: dict[str, HookImplementation] = {}
    cause = trace_text = ""
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            module = importer()
            for problem in problems(module):
                raise _Unusable(problem)
            hooks = implementations(module)
        except _Unusable as problem:
            cause = str(problem)
        except (Exception, SystemExit) as error:
            cause, trace_text = describe(error), _traceback()
        for hook, kind in DECLARATIONS.items():
            if hook not in hooks:
                continue
            try:
                declared[kind] = _declarations(plugin, hooks[hook], RECORD_TYPES[kind])
            except _Unusable as problem:
                cause = cause or str(problem)
            except (Exception, SystemExit) as error:
                cause = cause or f"{hook} raised {describe(error)}"
                trace_text = trace_text or _traceback()
    return replace(
        plugin,
        status="broken" if cause else "ok",
        cause=cause,
        traceback=trace_text,
        load_ms=(time.perf_counter() - started) * 1000,
        printed=printed.getvalue(),
        records=declared,
        hooks=hooks,
    )


def describe(error: BaseException) -> str:
    """An exception on one line: its type and the first line of its message."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


def _declarations(plugin: Plugin, implementation: HookImplementation, expected: type) -> tuple[Any, ...]:
    with trace.call(plugin.namespace, implementation.hook) as answer:
        yielded = implementation()
        if yielded is None:
            raise _Unusable(f"{implementation.hook} gives None: a `yield` or `return` is missing")
        if not isinstance(yielded, Iterable):
            wanted, kind = expected.__name__, type(yielded).__name__
            raise _Unusable(
                f"{implementation.hook} must give {wanted}s, in a tuple or by `yield`, not one {kind}"
            )
        found = tuple(yielded)
        for record in found:
            if not isinstance(record, expected):
                raise _Unusable(f"{implementation.hook} must yield {expected.__name__}s, not {record!r:.80}")
        answer(f"{len(found)} records")
    return tuple(replace(record, origin=plugin.origin) for record in found)
