"""What a plugin does to a process in which nothing else has happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.records import Record
from fusionbench_core.testing.check import Violation
from fusionbench_core.testing.sandbox import environment

if TYPE_CHECKING:
    from fusionbench_core.testing.plugin_subject import PluginSubject

TIME_LIMIT = 100.0
"""Seconds that importing a plugin may take; a check has 120."""


@dataclass(frozen=True)
class Loaded:
    """What importing the light module and calling its declarations did.

    Attributes:
        milliseconds: Time of the import alone.
        heavy: Packages that it imported and that are slow to import.
        cause: Why its declarations could not be read, empty if they could.
        same: Whether a second call declared the same.
        printed: What it wrote to the standard streams.
        warned: Warnings it raised.
        files: Files it wrote into the working directory or the home.
    """

    milliseconds: float
    heavy: tuple[str, ...]
    cause: str
    same: bool
    printed: str
    warned: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Resolved:
    """What importing the modules of everything it declares did.

    Attributes:
        changed: Global state that differs afterwards.
        error: Why a module could not be imported, empty if all could.
        written: Files and directories that appeared beside its packages.
        others: Modules of other packages that were imported for it, in that order.
    """

    changed: tuple[str, ...]
    error: str
    written: tuple[str, ...]
    others: tuple[str, ...]


def loaded(subject: PluginSubject) -> Loaded:
    """Load a plugin in a process of its own."""
    plugin = subject.plugin
    assert plugin is not None
    file = plugin.distribution if plugin.local else ""
    answer = _ask({"do": "load", "module": subject.module, "namespace": plugin.namespace, "file": file})
    return Loaded(**{name: _tuple(value) for name, value in answer.items()})


def resolved(subject: PluginSubject) -> Resolved:
    """Import all that a plugin declares, after the packages of others that it uses."""
    modules = modules_of(subject)
    own = sorted({module.partition(".")[0] for module in modules})
    found = _resolved({"do": "resolve", "modules": modules, "own": own, "before": ["torch"]})
    if found.error or not found.changed:
        return found
    # What other packages do to the process when they are imported is not this plugin's fault.
    return _resolved({"do": "resolve", "modules": modules, "own": own, "before": ["torch", *found.others]})


def _resolved(request: dict[str, Any]) -> Resolved:
    return Resolved(**{name: _tuple(value) for name, value in _ask(request).items()})


def modules_of(subject: PluginSubject) -> list[str]:
    """The light module, then those that its records name."""
    plugin = subject.plugin
    assert plugin is not None
    records = [record for found in plugin.records.values() for record in found]
    targets = [record.target.partition(":")[0] for record in records if isinstance(record, Record)]
    return list(dict.fromkeys([subject.module, *targets]))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fb-fresh-") as scratch:
        home = Path(scratch)
        for part in ("tmp", "work"):
            (home / part).mkdir()
        (home / "request.json").write_text(json.dumps(request), encoding="utf-8")
        paths = [os.path.abspath(path) for path in sys.path if path]
        command = [sys.executable, "-m", "fusionbench_core.testing.package_checks.probe", str(home)]
        try:
            done = subprocess.run(
                command,
                cwd=home / "work",
                env={**environment(home), "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT,
            )
        except subprocess.TimeoutExpired:
            raise Violation(f"importing it does not end within {TIME_LIMIT:.0f} s") from None
        answer = home / "answer.json"
        if not answer.is_file():
            last = "\n".join(done.stderr.strip().splitlines()[-4:])
            raise Violation(f"importing it ended the process (exit status {done.returncode})\n{last}".strip())
        return json.loads(answer.read_text(encoding="utf-8"))
