"""The conformance kit: what a plugin must do to work with everything else, as checks that run.

    from fusionbench_core.testing import parametrize_with_checks
    from fb_mymethod.plugin import ENTRIES

    @parametrize_with_checks(ENTRIES)
    def test_conformance(entry, check):
        check(entry)

`fb plugin check fb-mymethod` and :func:`check_plugin` run the same checks in a process of their own,
without network and with a home of its own. Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench_core.testing.check import Check, Inapplicable, Violation, catalogue
    from fusionbench_core.testing.execute import iter_checks, run_check, run_checks
    from fusionbench_core.testing.pytest_skin import parametrize_with_checks
    from fusionbench_core.testing.report import CheckReport
    from fusionbench_core.testing.result import Result
    from fusionbench_core.testing.subjects import subject_of, subjects_of
    from fusionbench_core.testing.supervise import check_plugin
    from fusionbench_core.testing.zoo import Case, ZooTask, case

__all__ = [
    "Case",
    "Check",
    "CheckReport",
    "Inapplicable",
    "Result",
    "Violation",
    "ZooTask",
    "case",
    "catalogue",
    "check_plugin",
    "iter_checks",
    "parametrize_with_checks",
    "run_check",
    "run_checks",
    "subject_of",
    "subjects_of",
]

_MODULES = {
    "check": ("Check", "Inapplicable", "Violation", "catalogue"),
    "execute": ("iter_checks", "run_check", "run_checks"),
    "pytest_skin": ("parametrize_with_checks",),
    "report": ("CheckReport",),
    "result": ("Result",),
    "subjects": ("subject_of", "subjects_of"),
    "supervise": ("check_plugin",),
    "zoo": ("Case", "ZooTask", "case"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
