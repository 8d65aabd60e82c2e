"""Run checks on subjects, one after the other, whatever any of them does."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from fusionbench_core.errors import FusionError
from fusionbench_core.testing.check import Check, Inapplicable, Level, Violation, checks_of
from fusionbench_core.testing.result import FAILING, Result
from fusionbench_core.testing.subject import Subject

Expected = Mapping[str, Mapping[str, str]]
"""Name of a record (short or full) -> check ID -> the reason why it is expected to fail."""

FIRST = "-101"
"""End of the ID of each kind's first check, which alone judges what cannot be imported."""


def iter_checks(subject: Subject, level: Level = "full") -> Iterator[tuple[Subject, Check]]:
    """`(subject, check)` pairs in the order to run them: the one source of all ways to run the kit."""
    return ((subject, check) for check in checks_of(subject.kind, level))


def run_checks(
    subjects: Iterable[Subject],
    level: Level = "full",
    *,
    expected: Expected | None = None,
    only: Iterable[str] = (),
    done: Collection[tuple[str, str]] = (),
    failed: Mapping[str, Iterable[str]] | None = None,
    on_start: Callable[[Subject, Check], None] = lambda subject, check: None,
) -> Iterator[Result]:
    """Run every check of every subject; each result as soon as it is there.

    Args:
        only: IDs of the checks to run; empty for all.
        done: (subject, check) pairs to leave out, as they ran before.
        failed: Subject -> IDs of the checks that failed among those.
        on_start: Called before each check.
    """
    wanted = set(only)
    for subject in subjects:
        lost = set((failed or {}).get(subject.name, ()))
        for _, check in iter_checks(subject, level):
            if (wanted and check.id not in wanted) or (subject.name, check.id) in done:
                continue
            on_start(subject, check)
            result = run_check(check, subject, expected=expected or {}, failed=lost)
            if result.status in FAILING or result.status == "xfailed":
                lost.add(check.id)
            yield result


def run_check(
    check: Check, subject: Subject, *, expected: Expected | None = None, failed: Iterable[str] = ()
) -> Result:
    """Run one check on one subject. Never raises, but for an interrupt.

    Args:
        expected: Failures that are known, with their reasons.
        failed: IDs of the checks that failed on this subject before.
    """
    reason = _reason(expected or {}, subject, check)
    missing = sorted(set(check.requires) & set(failed))
    started = time.perf_counter()
    if missing:
        return _result(check, subject, "skipped", started, message=f"{', '.join(missing)} failed")
    if subject.record is not None and not check.id.endswith(FIRST) and (lacking := _lacking(subject)):
        return _result(check, subject, "skipped", started, message=lacking)
    try:
        suggestion = check(subject)
    except Inapplicable as because:
        return _result(check, subject, "skipped", started, message=str(because))
    except Violation as fault:
        status = "xfailed" if reason else "failed"
        return _result(
            check,
            subject,
            status,
            started,
            required=check.required or fault.false_declaration,
            message=f"{fault.what} (expected: {reason})" if reason else fault.what,
            measured=fault.measured,
            bound=fault.bound,
            reproduce=fault.reproduce,
        )
    except FusionError as error:
        status = "xfailed" if reason else "failed"
        return _result(check, subject, status, started, message=f"unexpected {type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        return _result(check, subject, "error", started, message=f"{type(error).__name__}: {error}")
    if reason:
        message = f"it passes, and was expected to fail: {reason}"
        return _result(check, subject, "xpassed", started, message=message, required=True)
    return _result(check, subject, "passed", started, suggestion=suggestion or "")


def _lacking(subject: Subject) -> str:
    """Why there is nothing to look at, which each kind's first check tells in full; empty if there is."""
    try:
        cls = subject.cls
    except FusionError:
        return "it cannot be imported"
    if subject.kind == "method" and (inspect.isabstract(cls) or getattr(cls, "record", None) is None):
        return "its class is no complete method"
    return ""


def _reason(expected: Expected, subject: Subject, check: Check) -> str:
    short = subject.name.rpartition("/")[2]
    for name in (subject.name, short):
        reason = expected.get(name, {}).get(check.id)
        if reason is not None:
            if not reason.strip():
                raise ValueError(f"the expected failure of {check.id} on {name} needs a reason")
            return reason
    return ""


def _result(check: Check, subject: Subject, status, started: float, **more) -> Result:
    return Result(
        check=check.id,
        title=check.title,
        subject=subject.name,
        status=status,
        seconds=round(time.perf_counter() - started, 4),
        page=check.page,
        **{"required": check.required, "fix": check.fix if status in FAILING else "", **more},
    )
