"""What came out of one check on one subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]

FAILING: frozenset[str] = frozenset({"failed", "error", "xpassed"})
"""Statuses that are not accepted: an unexpected pass is one of them."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One check on one subject.

    Attributes:
        check: ID of the check.
        title: Its title.
        subject: Full name of the record, or the plugin's namespace.
        status: `passed`; `failed`: a fault; `error`: the check itself could not finish; `skipped`: does
            not apply, or a check it needs failed; `xfailed`: failed as expected; `xpassed`: expected to
            fail, and passed.
        required: Whether this failing makes the plugin non-conformant.
        message: What is wrong, why it was skipped, or the reason given for an expected failure.
        fix: What to do about a fault.
        suggestion: What the author may declare or improve.
        measured: Value found.
        bound: What it should have been within.
        reproduce: A line of Python.
        seconds: Wall time.
        page: Where the documentation explains the check.
    """

    check: str
    title: str
    subject: str
    status: Status
    required: bool = True
    message: str = ""
    fix: str = ""
    suggestion: str = ""
    measured: str | None = None
    bound: str | None = None
    reproduce: str = ""
    seconds: float = 0.0
    page: str = ""

    @property
    def failing(self) -> bool:
        """Whether this result keeps the plugin from being conformant."""
        return self.required and self.status in FAILING

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The result that `to_json` gave."""
        return cls(**data)


def conformant(results: Iterable[Result]) -> bool:
    """Whether every required check passed, was skipped, or failed as expected."""
    return not any(result.failing for result in results)
