"""The installed distribution: its entry point, its metadata, its files."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fusionbench_core.hookspecs import PROJECT
from fusionbench_core.plugins.discovery import CORE
from fusionbench_core.plugins.loading import describe
from fusionbench_core.plugins.namespaces import trouble
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.package_checks.fresh import modules_of
from fusionbench_core.testing.plugin_subject import PluginSubject

LOWER, UPPER = frozenset({">=", ">", "~=", "=="}), frozenset({"<", "<=", "~=", "=="})
"""Comparisons that bound a version from one side."""

TOP_LEVEL = frozenset({"benchmarks", "conftest", "docs", "examples", "scripts", "test", "tests", "tools"})
"""Names that several distributions would install over each other."""


@check("FP-101")
def entry_point(subject: PluginSubject) -> None:
    """It has one entry point in the group `fusionbench`, and this core can import what that names.

    The entry point is all that the platform knows of a plugin before it is imported.

    Fix: name one module under `[project.entry-points.fusionbench]`, and see that it can be imported.
    """
    plugin, distribution = subject.plugin, subject.distribution
    assert plugin is not None
    points = [point for point in distribution.entry_points if point.group == PROJECT]
    if len(points) != 1:
        named = ", ".join(f"{point.name} = {point.value}" for point in points)
        raise Violation("a distribution has one entry point", measured=named or "none", bound="one")
    if plugin.status in ("incompatible", "disabled"):
        raise Violation(f"it is {plugin.status} here, so nothing uses it: {plugin.cause}")
    try:
        importlib.import_module(subject.module)
    except (Exception, SystemExit) as error:
        raise Violation(
            f"{subject.module} cannot be imported: {describe(error)}",
            reproduce=f"import {subject.module}",
        ) from error


@check("FP-102")
def metadata_complete(subject: PluginSubject) -> None:
    """Its metadata says licence, summary and Python versions, and bounds the core from below and above.

    People decide by them whether they may use it, and installers whether it works with what is there.

    Fix: fill `license`, `description` and `requires-python` in, and depend on `fusionbench-core>=1.0,<2`.
    """
    facts = subject.distribution.metadata
    licence = facts.get("License-Expression") or facts.get("License")
    classified = any(each.startswith("License ::") for each in facts.get_all("Classifier") or ())
    missing = [
        word
        for word, there in (
            ("a licence", licence or classified),
            ("a summary", facts.get("Summary")),
            ("the Python versions it needs", facts.get("Requires-Python")),
        )
        if not there or there == "UNKNOWN"
    ]
    if missing:
        raise Violation(f"its metadata lacks {', '.join(missing)}")
    operators = {each.operator for each in _core_specifiers(subject)}
    lacking = [side for side, some in (("a lower", LOWER), ("an upper", UPPER)) if not operators & some]
    if lacking:
        found = ",".join(str(each) for each in _core_specifiers(subject))
        raise Violation(
            f"it depends on {CORE} without {' and '.join(lacking)} bound",
            measured=found or "no bound",
            bound="such as >=1.0,<2",
        )


@check("FP-103")
def namespace(subject: PluginSubject) -> None:
    """Its namespace is its distribution's name, well formed and free to take.

    Full names such as `merging/ties_merging` tell users where a method comes from.

    Fix: name the entry point like the distribution, without `fb-` and with underscores.
    """
    assert subject.plugin is not None
    _ = subject.distribution
    problem = trouble(subject.plugin.namespace, subject.plugin.distribution)
    if problem:
        raise Violation(problem)


@check("FP-111")
def typed(subject: PluginSubject) -> None:
    """It ships `py.typed`.

    Without that file, type checkers ignore every annotation of the package.

    Fix: put an empty file `py.typed` beside the package's `__init__.py`, and see that the wheel holds it.
    """
    _ = subject.distribution
    missing = [each for each in _package_directories(subject) if not (each / "py.typed").is_file()]
    if missing:
        raise Violation("py.typed is missing", measured=", ".join(map(str, missing)))


@check("FP-113", required=False)
def nothing_at_top_level(subject: PluginSubject) -> None:
    """It installs no `tests`, `docs` or the like at top level.

    Two distributions that do overwrite each other's files, and `import tests` finds either.

    Fix: leave these directories out of the wheel: name the package to ship.
    """
    first = {path.parts[0].removesuffix(".py") for path in _files(subject) if path.parts}
    if found := sorted(first & TOP_LEVEL):
        raise Violation(f"it installs {', '.join(found)} at top level")


@check("FP-114", required=False, level="full", requires=("FP-101", "FP-107"))
def leaves_no_trace(subject: PluginSubject) -> None:
    """It writes nothing into the directory it is installed in.

    Uninstalling removes the files that were installed, and leaves all others behind.

    Fix: write caches to `fusionbench_core.cache_dir(…)`, and ship data files in the wheel.
    """
    installed = {str(_located(subject, path)) for path in _files(subject)}
    written = list(subject.resolved.written)
    for directory in _package_directories(subject):
        written += [str(file) for file in _own_files(directory) if str(file.resolve()) not in installed]
    if written:
        raise Violation("files appeared that uninstalling would leave behind", measured=", ".join(written))


def _core_specifiers(subject: PluginSubject) -> list:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed = [Requirement(text) for text in subject.distribution.requires or ()]
    return [
        each
        for one in needed
        if canonicalize_name(one.name) == CORE and (one.marker is None or one.marker.evaluate({"extra": ""}))
        for each in one.specifier
    ]


def _package_directories(subject: PluginSubject) -> list[Path]:
    """Where its top-level packages are."""
    found = []
    for name in dict.fromkeys(module.partition(".")[0] for module in modules_of(subject)):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        if not spec.submodule_search_locations:
            raise Violation(f"{name} is a single module, which cannot ship py.typed", bound="a package")
        found += [Path(location) for location in spec.submodule_search_locations]
    return found


def _files(subject: PluginSubject) -> list[PurePosixPath]:
    """The files that were installed.

    Raises:
        Inapplicable: if nothing says which they are, as for an editable installation.
    """
    files = subject.distribution.files
    package = subject.module.partition(".")[0]
    if not any(path.parts[:1] == (package,) for path in files or ()):
        raise Inapplicable("it is installed editable: its files are not those of a wheel")
    return [PurePosixPath(path) for path in files or () if ".." not in path.parts]


def _located(subject: PluginSubject, path: PurePosixPath) -> Path:
    return Path(str(subject.distribution.locate_file(path))).resolve()


def _own_files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
