"""What the tests of the conformance kit share: run the kit on one record, and say what it caught."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import replace

from fusionbench_core.plugins import Plugin
from fusionbench_core.records import Origin, Record
from fusionbench_core.registry import Registry
from fusionbench_core.testing import run_checks
from fusionbench_core.testing.result import FAILING, Result
from fusionbench_core.testing.subject import Subject
from fusionbench_core.testing.subjects import subjects_of

KINDS = {"MethodRecord": "method", "SourceRecord": "source", "TaskRecord": "task"}


def subject(record: Record) -> Subject:
    """A record as the kit sees it in a plugin `faulty`, with its module's `BUILDERS` and `STATISTICS`."""
    kind = KINDS[type(record).__name__]
    origin = Origin(namespace="faulty", distribution="fb-faulty", version="1.0", module="faulty")
    owned = type(record)(**{**vars(record), "origin": origin})
    module = record.target.partition(":")[0]

    def beside(name: str) -> tuple[Record, ...]:
        declared = getattr(importlib.import_module(module), name, ())
        return tuple(replace(each, origin=origin) for each in declared)

    plugin = Plugin(
        namespace="faulty",
        distribution="fb-faulty",
        version="1.0",
        module=module,
        status="ok",
        records={kind: (owned,), "builder": beside("BUILDERS"), "statistic": beside("STATISTICS")},
    )
    return subjects_of(plugin, Registry([plugin]))[1]


def results(record: Record, level: str = "fast", only: Iterable[str] = ()) -> list[Result]:
    """All results of a record at a level."""
    return list(run_checks([subject(record)], level, only=only))


def caught(record: Record, *full: str) -> set[str]:
    """IDs of the checks that a record fails: all fast ones, and those of the full level that are named."""
    found = results(record) + (results(record, "full", full) if full else [])
    return {result.check for result in found if result.status in FAILING}
