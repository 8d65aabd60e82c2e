"""The kit as a pytest decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fusionbench_core.records import Record
from fusionbench_core.testing.check import Check, Level
from fusionbench_core.testing.execute import Expected, iter_checks, run_check
from fusionbench_core.testing.result import FAILING
from fusionbench_core.testing.subject import Subject
from fusionbench_core.testing.subjects import SUBJECTS, subject_of


class CheckCall:
    """One check, to be called with the subject it was paired with."""

    def __init__(self, check: Check, expected: Expected, failed: dict[str, set[str]]) -> None:
        self.check, self._expected, self._failed = check, expected, failed

    def __call__(self, subject: Subject) -> None:
        """Run it in this process; pytest sees a failure, a skip or an expected failure."""
        import pytest

        failed = self._failed.setdefault(subject.name, set())
        result = run_check(self.check, subject, expected=self._expected, failed=failed)
        if result.status in (*FAILING, "xfailed"):
            failed.add(self.check.id)
        if result.status == "skipped":
            pytest.skip(result.message)
        if result.status == "xfailed":
            pytest.xfail(result.message)
        if result.status in FAILING and (result.required or self.check.required):
            facts = [
                ("why", self.check.why),
                ("measured", result.measured),
                ("bound", result.bound),
                ("reproduce", result.reproduce),
                ("fix", self.check.fix),
                ("more", result.page),
            ]
            lines = [f"  {key:<12}{value}" for key, value in facts if value]
            pytest.fail("\n".join([f"{self.check.id} {result.message}", *lines]), pytrace=False)


def parametrize_with_checks(
    records: Iterable[Record],
    *,
    level: Level = "full",
    expected_failures: Expected | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a test with arguments `(entry, check)`: it runs once for each check of each record.

        @parametrize_with_checks(ENTRIES, expected_failures={"dare": {"FM-214": "one mask for all"}})
        def test_conformance(entry, check):
            check(entry)

    Args:
        records: What the plugin declares: method, source and task records. Others are left out.
        level: `fast` or `full`.
        expected_failures: Name of a record -> ID of a check -> why it fails. Strict: passing fails.
    """
    import pytest

    failed: dict[str, set[str]] = {}
    pairs = []
    for record in records:
        if not isinstance(record, tuple(SUBJECTS)):
            continue
        for subject, check in iter_checks(subject_of(record), level):
            call = CheckCall(check, expected_failures or {}, failed)
            # One worker for one record: checks that need another one look at what that one gave.
            group = pytest.mark.xdist_group(subject.name)
            pairs.append(pytest.param(subject, call, id=f"{record.name}-{check.id}", marks=group))
    return pytest.mark.parametrize(("entry", "check"), pairs)
