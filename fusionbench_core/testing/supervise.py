"""Check a plugin in processes of their own, so that nothing it does can hurt the one that asks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fusionbench_core.errors import ConfigError, PluginBroken, UnknownName
from fusionbench_core.testing.check import Level, catalogue
from fusionbench_core.testing.choosing import chosen_checks
from fusionbench_core.testing.execute import Expected
from fusionbench_core.testing.locating import locate
from fusionbench_core.testing.process import CheckingProcess
from fusionbench_core.testing.report import CheckReport
from fusionbench_core.testing.result import FAILING, Result

TIME_LIMIT = 120.0
"""Seconds that one check may take."""


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
        subjects: Names of the records to check, short or full, or the namespace for the plugin itself; empty
            for all.
        expected_failures: Name of a record -> check ID -> reason.
        jobs: Processes at a time.
        time_limit: Seconds that one check may take.
        on_result: Called with each result as soon as it is there, from any thread.

    Raises:
        ConfigError: if there is no such plugin, record or check, or no check looks at such records.
        PluginBroken: if the plugin cannot be checked at all.
    """
    started = time.monotonic()
    target = locate(what)
    request = {
        **target.request,
        "level": level,
        "only": chosen_checks(only, level),
        "subjects": list(subjects),
        "expected": {name: dict(each) for name, each in (expected_failures or {}).items()},
        "done": [],
        "failed": {},
        "list": False,
    }
    with tempfile.TemporaryDirectory(prefix="fb-check-") as scratch:
        results = list(_all(request, Path(scratch), jobs, time_limit, on_result))
    if not results:
        raise ConfigError(
            f"there is nothing to run: no record asked for is looked at by {', '.join(request['only'])}",
            why="FP checks look at the plugin itself, FM at methods, FS at model sources, FT at tasks",
            fix="leave out `--only` or `--subject`",
        )
    return CheckReport(target.title, level, tuple(results), seconds=round(time.monotonic() - started, 2))


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
    for event in CheckingProcess({**request, "list": True}, home, time_limit).events():
        _raise_unknown(event)
        if "subjects" in event:
            return event["subjects"]
    return []


def _raise_unknown(event: dict[str, Any]) -> None:
    if "unknown" in event:
        raise UnknownName(event["unknown"], fix=event["fix"])


def _one(
    request: dict[str, Any], home: Path, time_limit: float, on_result: Callable[[Result], None]
) -> Iterator[Result]:
    """Results of one child; where it dies or hangs, that check failed and another goes on."""
    done: list[list[str]] = []
    failed: dict[str, list[str]] = {}
    while True:
        running: list[str] | None = None
        finished = False
        child = CheckingProcess(
            {**request, "done": done, "failed": failed}, home / str(len(done)), time_limit
        )
        for event in child.events():
            _raise_unknown(event)
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


def _died(running: Sequence[str], child: CheckingProcess) -> Result:
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
