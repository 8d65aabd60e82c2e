"""The process in which one plugin is checked: reads a request, writes one JSON line an event.

`python -m fusionbench_core.testing.child REQUEST EVENTS`
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fusionbench_core.errors import FusionError, UnknownName
from fusionbench_core.plugins import Plugin, installed_plugins
from fusionbench_core.plugins.collection import configure
from fusionbench_core.registry import default_registry
from fusionbench_core.testing.check import Check
from fusionbench_core.testing.choosing import chosen_subjects
from fusionbench_core.testing.execute import run_checks
from fusionbench_core.testing.plugin_subject import PluginSubject
from fusionbench_core.testing.sandbox import no_network
from fusionbench_core.testing.subject import Subject
from fusionbench_core.testing.subjects import subjects_of


def main(request: str, events: str) -> None:
    """List the subjects, or run what the request asks for but the pairs that are done."""
    wanted = json.loads(Path(request).read_text(encoding="utf-8"))
    done = {(subject, check) for subject, check in wanted["done"]}
    with open(events, "a", encoding="utf-8", buffering=1) as stream:

        def tell(**event: Any) -> None:
            stream.write(json.dumps(event) + "\n")

        with no_network():
            try:
                subjects = _subjects(wanted)
            except UnknownName as error:
                tell(unknown=error.what, fix=error.fix)
                return
            except FusionError as error:
                tell(error=str(error))
                return
            _run(subjects, wanted, done, tell)


def _run(subjects: list[Subject], wanted: Mapping[str, Any], done: set, tell: Any) -> None:
    tell(subjects=[subject.name for subject in subjects])
    if wanted["list"]:
        return
    # Whoever asks for entry points, as Fabric does for every training, reads those of everything installed.
    # Nothing is installed while a plugin is checked.
    importlib.metadata.entry_points = cache(importlib.metadata.entry_points)
    known: set[str] = set()

    def start(subject: Subject, check: Check) -> None:
        if subject.name not in known:
            known.add(subject.name)
            # What was imported for others is no garbage: collections need not look through it again.
            gc.freeze()
        tell(start=[subject.name, check.id])

    results = run_checks(
        subjects,
        wanted["level"],
        expected=wanted["expected"],
        only=wanted["only"],
        done=done,
        failed=wanted["failed"],
        on_start=start,
    )
    for result in results:
        tell(result=result.to_json())
    tell(finished=True)


def _subjects(wanted: Mapping[str, Any]) -> list[Subject]:
    files = [Path(wanted["file"])] if wanted["file"] else []
    configure(files=files)
    plugins = installed_plugins()
    plugin: Plugin | None
    plugin = list(plugins)[-1] if files else plugins.get(wanted["namespace"])
    if plugin is None:
        raise FusionError(f"there is no plugin {wanted['namespace']!r} in the process that checks it")
    registry = default_registry()
    if plugin.status != "ok":
        # Whatever was asked for: its own checks say what is wrong.
        return [PluginSubject(None, plugin, registry)]
    return chosen_subjects(subjects_of(plugin, registry), wanted["subjects"])


if __name__ == "__main__":
    main(*sys.argv[1:])
