"""What a conformance check is, and the catalogue of all of them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["fast", "full"]
Kind = Literal["plugin", "method", "source", "task"]

KINDS: dict[str, Kind] = {"FP": "plugin", "FM": "method", "FS": "source", "FT": "task"}
"""First letters of a check's ID -> what it looks at."""

MODULES = (
    "package_checks.distribution",
    "package_checks.declarations",
    "package_checks.presets",
    "method_checks.contract",
    "method_checks.documentation",
    "method_checks.structure",
    "method_checks.buffers",
    "method_checks.numerics",
    "method_checks.laws",
    "method_checks.formulas",
    "method_checks.settings",
    "method_checks.determinism",
    "method_checks.streaming",
    "method_checks.scratch",
    "method_checks.artefact",
    "method_checks.errors",
    "method_checks.hygiene",
    "method_checks.source_code",
    "source_checks.contract",
    "source_checks.reading",
    "task_checks.contract",
    "task_checks.measuring",
)
"""Where the checks are, in the order they run."""


class Violation(Exception):
    """A check found a fault.

    Args:
        what: What is wrong, in words that need no knowledge of the check.
        measured: The value found, where there is one.
        bound: What it should have been, or been within.
        reproduce: One line of Python that shows the fault.
        false_declaration: The plugin declares what does not hold; counts as required whatever the check.
    """

    def __init__(
        self,
        what: str,
        *,
        measured: object = None,
        bound: object = None,
        reproduce: str = "",
        false_declaration: bool = False,
    ) -> None:
        super().__init__(what)
        self.what, self.reproduce, self.false_declaration = what, reproduce, false_declaration
        self.measured = None if measured is None else str(measured)
        self.bound = None if bound is None else str(bound)


class Inapplicable(Exception):
    """The check has nothing to say about this subject; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One conformance check. Calling it with a subject raises `Violation` where there is a fault.

    Attributes:
        id: Stable name, e.g. `FM-203`: never given to another check.
        title: One line.
        why: The reason it exists.
        fix: What an author does about it.
        required: Whether a plugin must pass it to be called conformant.
        level: `fast` checks always run, `full` ones only when asked for.
        requires: IDs of checks without which this one says nothing: skipped where one of them failed.
        since: Version of the core that brought it.
    """

    id: str
    title: str
    why: str
    fix: str
    required: bool
    level: Level
    requires: tuple[str, ...]
    since: str
    function: Callable[[Any], str | None]

    @property
    def kind(self) -> Kind:
        """What it looks at."""
        return KINDS[self.id[:2]]

    @property
    def page(self) -> str:
        """Its place in the documentation."""
        return f"reference/conformance.md#{self.id.lower()}"

    def __call__(self, subject: Any) -> str | None:
        """Look at a subject; gives a suggestion, or None.

        Raises:
            Violation: there is a fault.
            Inapplicable: there is nothing to look at.
        """
        return self.function(subject)


_CATALOGUE: dict[str, Check] = {}


def check(
    id: str,
    *,
    required: bool = True,
    level: Level = "fast",
    requires: tuple[str, ...] = (),
    since: str = "1.0",
) -> Callable[[Callable[[Any], str | None]], Check]:
    """Register a function as a check. Its docstring: title, why (a paragraph), `Fix:` (a paragraph)."""

    def register(function: Callable[[Any], str | None]) -> Check:
        title, why, fix = _paragraphs(function.__doc__ or "")
        known = _CATALOGUE.get(id)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ValueError(f"two checks are called {id}")
        _CATALOGUE[id] = made = Check(id, title, why, fix, required, level, requires, since, function)
        return made

    return register


def catalogue() -> list[Check]:
    """All checks of this version of the kit, sorted by ID within each kind."""
    for module in MODULES:
        importlib.import_module(f"fusionbench_core.testing.{module}")
    order = list(KINDS)
    return sorted(_CATALOGUE.values(), key=lambda each: (order.index(each.id[:2]), each.id))


def checks_of(kind: Kind, level: Level = "full") -> Iterator[Check]:
    """The checks that look at `kind`; at `fast`, the fast ones."""
    return (each for each in catalogue() if each.kind == kind and level in ("full", each.level))


def _paragraphs(doc: str) -> tuple[str, str, str]:
    parts = [re.sub(r"\s+", " ", part).strip() for part in doc.strip().split("\n\n")]
    title, *rest = parts
    fix = next((part.removeprefix("Fix: ") for part in rest if part.startswith("Fix: ")), "")
    why = " ".join(part for part in rest if not part.startswith("Fix: "))
    if not (title and why and fix):
        raise ValueError(f"a check's docstring needs a title, a reason and a `Fix:`; got {doc!r}")
    return title.rstrip("."), why, fix


def unexpected(error: BaseException) -> str:
    """An error that a subject should not have raised, in one paragraph."""
    return f"{type(error).__name__}: {error}"
