"""Check a plugin in processes of their own, so that nothing it does can hurt the one that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionbench_core import __version__
from fusionbench_core.errors import ConfigError, PluginBroken
from fusionbench_core.plugins import find
from fusionbench_core.testing.check import Level, catalogue
from fusionbench_core.testing.execute import Expected
from fusionbench_core.testing.result import FAILING, Result, conformant
from fusionbench_core.testing.sandbox import environment

TIME_LIMIT = 120.0
"""Seconds that one check may take."""


@dataclass(frozen=True)
class CheckReport:
    """All results of one plugin.

    Attributes:
        plugin: Distribution and version, or the file.
        level: `fast` or `full`.
        results: In the order they ran.
        core: Version of the core, and so of the kit.
        seconds: Wall time.
    """

    plugin: str
    level: str
    results: tuple[Result, ...]
    core: str = __version__
    seconds: float = 0.0

    @property
    def conformant(self) -> bool:
        """Whether all required checks passed."""
        return bool(self.results) and conformant(self.results)

    def count(self, status: str) -> int:
        """Number of results with that status."""
        return sum(result.status == status for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """The machine-readable report: schema `fusionbench-check/1`."""
        return {
            "schema": "fusionbench-check/1",
            "plugin": self.plugin,
            "core": self.core,
            "level": self.level,
            "conformant": self.conformant,
            "seconds": self.seconds,
            "counts": {s: self.count(s) for s in sorted({result.status for result in self.results})},
            "results": [result.to_json() for result in self.results],
        }


def check_plugin(
    what: str | Path,
    *,
    level: Level = "fast",
    only: Iterable[str] = (),
    subjects: Iterable[str] = (),
    expected_failures: Expected | None = None,
    jobs: int = 1,
    time_limit: float = TIME_LIMIT,
    on_result: Callable[[Result], None] = lambda result: None,
) -> CheckReport:
    """Check everything that a plugin declares.

    Args:
        what: A distribution (`fb-mymethod`), a namespace (`mymethod`), the directory of a project whose
            distribution is installed, or a plugin file (`./my_method.py`).
        level: `fast` or `full`.
        only: IDs of the checks to run; empty for all of the level.
        subjects: Full names of the records to check; empty for all.
        expected_failures: Name of a record -> check ID -> reason.
        jobs: Processes at a time.
        time_limit: Seconds that one check may take.
        on_result: Called with each result as soon as it is there, from any thread.

    Raises:
        ConfigError: if there is no such plugin, or a check ID is unknown.
    """
    started = time.monotonic()
    target = locate(what)
    request = {
        **target.request,
        "level": level,
        "only": _known(only),
        "subjects": list(subjects),
        "expected": {name: dict(each) for name, each in (expected_failures or {}).items()},
        "done": [],
        "failed": {},
        "list": False,
    }
    with tempfile.TemporaryDirectory(prefix="fb-check-") as scratch:
        results = list(_all(request, Path(scratch), jobs, time_limit, on_result))
    return CheckReport(target.title, level, tuple(results), seconds=round(time.monotonic() - started, 2))


@dataclass(frozen=True)
class Target:
    """What to check, as the child is told."""

    title: str
    request: dict[str, str] = field(default_factory=dict)


def locate(what: str | Path) -> Target:
    """The plugin that a name, directory or file means.

    Raises:
        ConfigError: with what to do about it.
    """
    text, path = str(what), Path(what).expanduser()
    if text.endswith(".py"):
        if not path.is_file():
            raise ConfigError(f"there is no file {text}", fix="give the path of a plugin file")
        return Target(text, {"file": str(path.resolve()), "namespace": ""})
    name = _project(path) if path.is_dir() else text
    plugins = find(cached=False)
    wanted = name.lower().replace("_", "-")
    for plugin in plugins:
        if wanted in (plugin.namespace.replace("_", "-"), *plugin.distribution.lower().split(", ")):
            title = f"{plugin.distribution} {plugin.version}"
            return Target(title, {"file": "", "namespace": plugin.namespace})
    if path.is_dir():
        raise ConfigError(
            f"the project in {text} is not installed",
            why=f"its distribution is {name}, and no plugin of that name is installed",
            fix=f"pip install {text}",
        )
    from fusionbench_core.suggest import did_you_mean

    names = [plugin.namespace for plugin in plugins] + [plugin.distribution for plugin in plugins]
    raise ConfigError(
        f"no plugin is called {name!r}",
        fix=did_you_mean(name, names) or "`fb plugin list` shows what there is",
    )


def _project(directory: Path) -> str:
    file = directory / "pyproject.toml"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        raise ConfigError(
            f"{directory} is not a Python project",
            why="it has no pyproject.toml",
            fix="give its root directory",
        ) from None
    name = _toml_name(text)
    if name is None:
        raise ConfigError(f"{file} names no project", fix="add `name` to its [project] table")
    return name


def _toml_name(text: str) -> str | None:
    import re

    table = re.search(r"^\[project\]\s*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.search(r"^name\s*=\s*[\"']([^\"']+)[\"']", table.group(1), re.MULTILINE) if table else None
    return found.group(1) if found else None


def _known(only: Iterable[str]) -> list[str]:
    wanted = [each.upper() for each in only]
    ids = [check.id for check in catalogue()] if wanted else []
    for each in wanted:
        if each not in ids:
            from fusionbench_core.suggest import did_you_mean

            raise ConfigError(
                f"there is no check {each!r}",
                fix=did_you_mean(each, ids) or "docs/reference/conformance.md lists them",
            )
    return wanted


def _all(
    request: dict[str, Any], scratch: Path, jobs: int, time_limit: float, on_result: Callable[[Result], None]
) -> Iterator[Result]:
    if jobs <= 1 or len(request["subjects"]) == 1:
        yield from _one(request, scratch / "0", time_limit, on_result)
        return
    names = _names(request, scratch / "names", time_limit)
    # The plugin itself is first: its checks, and one record's, are about as long as the others'.
    shares = [share for share in (names[index::jobs] for index in range(jobs)) if share]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        futures = [
            pool.submit(
                lambda index=index, share=share: list(
                    _one({**request, "subjects": share}, scratch / str(index), time_limit, on_result)
                )
            )
            for index, share in enumerate(shares)
        ]
        found = {name: [] for name in names}
        for future in futures:
            for result in future.result():
                found.setdefault(result.subject, []).append(result)
    yield from (result for results in found.values() for result in results)


def _names(request: dict[str, Any], home: Path, time_limit: float) -> list[str]:
    events = _Child({**request, "list": True}, home, time_limit).events()
    return next((event["subjects"] for event in events if "subjects" in event), [])


def _one(
    request: dict[str, Any], home: Path, time_limit: float, on_result: Callable[[Result], None]
) -> Iterator[Result]:
    """Results of one child; where it dies or hangs, that check failed and another goes on."""
    done: list[list[str]] = []
    failed: dict[str, list[str]] = {}
    while True:
        running: list[str] | None = None
        finished = False
        child = _Child({**request, "done": done, "failed": failed}, home / str(len(done)), time_limit)
        for event in child.events():
            if "error" in event:
                raise PluginBroken("the plugin cannot be checked", why=event["error"])
            if "start" in event:
                running = event["start"]
            if "result" in event:
                result, running = Result.from_json(event["result"]), None
                done.append([result.subject, result.check])
                if result.status in (*FAILING, "xfailed"):
                    failed.setdefault(result.subject, []).append(result.check)
                on_result(result)
                yield result
            finished = finished or "finished" in event
        if finished:
            return
        if running is None:
            raise PluginBroken(
                "the process that checks the plugin died before its first check",
                why=child.last_words() or None,
                fix="`fb plugin info` may say what is wrong with it",
            )
        result = _died(running, child)
        done.append(running)
        failed.setdefault(running[0], []).append(running[1])
        on_result(result)
        yield result


def _died(running: Sequence[str], child: _Child) -> Result:
    check = next(each for each in catalogue() if each.id == running[1])
    if child.hung:
        message = f"it did not finish within {child.limit:.0f} s, and was stopped"
    else:
        message = (
            f"the process died (exit status {child.status}) during this check\n{child.last_words()}".strip()
        )
    return Result(
        check=check.id,
        title=check.title,
        subject=running[0],
        status="error",
        required=check.required,
        message=message,
        fix=check.fix,
        page=check.page,
    )


class _Child:
    """One process, its events, and how it ended."""

    def __init__(self, request: dict[str, Any], home: Path, limit: float) -> None:
        self._request, self._home, self.limit = request, home, limit
        self.hung, self.status = False, 0
        self._errors = home / "stderr.txt"

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come; the process has ended when they do."""
        for part in ("tmp", "work"):
            (self._home / part).mkdir(parents=True)
        request, events = self._home / "request.json", self._home / "events.jsonl"
        request.write_text(json.dumps(self._request), encoding="utf-8")
        events.touch()
        command = [sys.executable, "-m", "fusionbench_core.testing.child", str(request), str(events)]
        with self._errors.open("wb") as errors, events.open(encoding="utf-8") as stream:
            process = subprocess.Popen(
                command,
                cwd=self._home / "work",
                env=_without_cwd(environment(self._home)),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
            try:
                yield from self._follow(process, stream)
            finally:
                _stop(process)
        self.status = process.returncode

    def _follow(self, process: subprocess.Popen, stream: Any) -> Iterator[dict[str, Any]]:
        heard, pending = time.monotonic(), ""
        pause = threading.Event()
        while True:
            ended = process.poll() is not None
            pending += stream.read()
            *lines, pending = pending.split("\n")
            for line in lines:
                heard = time.monotonic()
                yield json.loads(line)
            if ended:
                return
            if time.monotonic() - heard > self.limit:
                self.hung = True
                return
            pause.wait(0.02)

    def last_words(self) -> str:
        """The last lines of its error stream."""
        try:
            text = self._errors.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-8:])


def _stop(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    if process.poll() is None:
        import signal

        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _without_cwd(env: dict[str, str]) -> dict[str, str]:
    # The import path of the one who asks, so that a plugin found there is found by the child as well.
    paths = [os.path.abspath(path) for path in sys.path if path]
    return {**env, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
