"""The subjects of records and of plugins."""

from __future__ import annotations

from fusionbench_core.plugins import Plugin
from fusionbench_core.records import MethodRecord, Record, SourceRecord, TaskRecord
from fusionbench_core.registry import Registry, default_registry
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.plugin_subject import PluginSubject
from fusionbench_core.testing.source_subject import SourceSubject
from fusionbench_core.testing.subject import Subject
from fusionbench_core.testing.task_subject import TaskSubject

SUBJECTS: dict[type, type[Subject]] = {
    MethodRecord: MethodSubject,
    SourceRecord: SourceSubject,
    TaskRecord: TaskSubject,
}
"""Type of a record -> what wraps it for checks."""


def subject_of(record: Record, registry: Registry | None = None) -> Subject:
    """The subject of a record, found among the installed plugins if it is one of theirs.

    Raises:
        TypeError: if there are no checks for such a record.
    """
    registry = registry or default_registry()
    if (kind := _kind_of(record)) is None:
        raise TypeError(f"there are no checks for a {type(record).__name__}")
    for plugin in registry.plugins:
        for declared in (each for records in plugin.records.values() for each in records):
            if declared == record and (record.origin is None or declared.origin == record.origin):
                return kind(declared, plugin, registry)
    return kind(record, None, registry)


def subjects_of(plugin: Plugin, registry: Registry) -> list[Subject]:
    """The plugin itself, then everything it declares that has checks."""
    found: list[Subject] = [PluginSubject(None, plugin, registry)]
    for records in plugin.records.values():
        for record in records:
            if (kind := _kind_of(record)) is not None:
                found.append(kind(record, plugin, registry))
    return found


def _kind_of(record: Record) -> type[Subject] | None:
    return next((kind for cls, kind in SUBJECTS.items() if isinstance(record, cls)), None)
