"""Build a plugin, install it with the cores it claims, check it and run its tests."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from packaging.version import InvalidVersion, Version

from fusionbench_core.errors import ConfigError, PluginBroken
from fusionbench_core.plugins.discovery import CORE
from fusionbench_core.testing.check import Level
from fusionbench_core.testing.validation.environment import Environment, borrow
from fusionbench_core.testing.validation.report import OwnTests, Run, Validation
from fusionbench_core.testing.validation.wheel import Wheel, read_wheel

Cores = Literal["lowest", "newest", "both"]

SETTINGS = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", "conftest.py")
"""Files beside `tests/` that say how to run them."""

_NO_CORE = re.compile(
    rf"(?:No matching distribution found|that satisfies the requirement) *(?:for )?{CORE}\b"
)


def validate(
    project: Path,
    *,
    cores: Cores = "both",
    level: Level = "full",
    sources: Sequence[str] = (),
    borrowed: bool = False,
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    show: Callable[[str], None] = lambda text: None,
) -> Validation:
    """Validate a plugin.

    Args:
        project: Directory of a project, or a wheel.
        cores: The oldest core that it claims, the newest that there is, or both.
        level: Which checks.
        sources: Options that say where pip looks, e.g. `--find-links DIR`.
        borrowed: Use the packages of this environment rather than installing them.
        keep: Directory for the environments, which are then kept; by default a temporary one.
        tell: Called with what happens next.
        show: Called with what the checks and the tests print.

    Raises:
        ConfigError: if the project is none, or claims no core.
        PluginBroken: if it cannot be built.
    """
    started = time.monotonic()
    project = project.expanduser().resolve()
    with ExitStack() as stack:
        scratch = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fb-validate-")))
        farm = borrow(scratch / "borrowed") if borrowed else None
        wheel = _wheel(project, scratch, sources, farm, tell)
        session = _Session(project, wheel, scratch, level, tuple(sources), farm, tell, show)
        runs = session.runs(cores)
        return Validation(
            plugin=f"{wheel.distribution} {wheel.version}",
            wheel=wheel.path.name,
            sha256=wheel.sha256,
            requires=str(wheel.requires),
            runs=tuple(runs),
            seconds=round(time.monotonic() - started, 1),
        )


def _wheel(
    project: Path, scratch: Path, sources: Sequence[str], farm: Path | None, tell: Callable[[str], None]
) -> Wheel:
    if project.suffix == ".whl" and project.is_file():
        return read_wheel(project)
    if not (project / "pyproject.toml").is_file():
        raise ConfigError(
            f"{project} is not a Python project",
            why="it has no pyproject.toml",
            fix="give its root directory",
        )
    tell(f"build the wheel of {project.name}")
    builder = Environment(scratch / "build", sources, farm)
    isolated = ["--no-build-isolation"] if farm else []
    done = builder.pip("wheel", "--no-deps", *isolated, "--wheel-dir", str(scratch / "dist"), str(project))
    built = sorted((scratch / "dist").glob("*.whl"))
    if done.returncode or not built:
        raise PluginBroken("the wheel cannot be built", project=project, why=_last(done.stdout, 12))
    return read_wheel(built[-1])


class _Session:
    """A wheel, and what is asked of it."""

    def __init__(
        self,
        project: Path,
        wheel: Wheel,
        scratch: Path,
        level: Level,
        sources: tuple[str, ...],
        farm: Path | None,
        tell: Callable[[str], None],
        show: Callable[[str], None],
    ) -> None:
        self.project, self.wheel, self.scratch, self.level = project, wheel, scratch, level
        self.sources, self.farm, self.tell, self.show = sources, farm, tell, show

    def runs(self, cores: Cores) -> list[Run]:
        found: list[Run] = []
        if cores in ("newest", "both"):
            found.append(self._run("newest", None))
        if cores in ("lowest", "both"):
            lowest = self.wheel.lowest_core
            if lowest is None:
                why = f"{self.wheel.requires or 'it'} names no oldest version: write >=X.Y"
                return [*found, Run(("lowest",), "?", "broken", why)]
            if found and _same(found[0].core, lowest):
                newest = found[0]
                both = (*newest.asked, "lowest")
                return [Run(both, newest.core, newest.status, newest.why, newest.check, newest.tests)]
            found.append(self._run("lowest", lowest))
        return found

    def _run(self, asked: str, core: str | None) -> Run:
        wanted = f"{CORE}=={core}" if core else f"{CORE}{self.wheel.requires}"
        self.tell(f"install {self.wheel.path.name} with {wanted} into a clean environment")
        environment = Environment(self.scratch / asked, self.sources, self.farm)
        done = environment.pip("install", self.wheel.installable, wanted, "pytest")
        if done.returncode:
            return self._not_installed(asked, core, done.stdout)
        version = environment.version(CORE)
        self.tell(f"check it with {CORE} {version}")
        check, why = self._check(environment)
        if check is None:
            return Run((asked,), version, "broken", why)
        self.tell("run its tests")
        tests = self._tests(environment)
        told = [] if check["conformant"] else ["required checks failed"]
        told += ["its tests failed"] if tests.status == "failed" else []
        return Run((asked,), version, "failed" if told else "ok", " and ".join(told), check, tests)

    def _not_installed(self, asked: str, core: str | None, said: str) -> Run:
        name = core or str(self.wheel.requires)
        if _NO_CORE.search(said):
            there = re.search(rf"{CORE}.*\(from versions: ([^)]*)\)", said)
            versions = there.group(1) if there else "none"
            why = f"{CORE} {name} cannot be had where pip looks; versions there: {versions}"
            return Run((asked,), name, "unavailable", why)
        return Run((asked,), name, "broken", f"it cannot be installed\n{_last(said, 8)}")

    def _check(self, environment: Environment) -> tuple[dict | None, str]:
        report = environment.root / "check.json"
        options = ("--level", self.level, "--format", "github", "--output", str(report))
        done = environment.fb("plugin", "check", self.wheel.distribution, *options)
        self.show(done.stdout)
        if not report.is_file():
            return None, f"it cannot be checked\n{_last(done.stderr, 8)}"
        return json.loads(report.read_text(encoding="utf-8")), ""

    def _tests(self, environment: Environment) -> OwnTests:
        if not (self.project / "tests").is_dir():
            return OwnTests("none")
        # A copy without the package beside it: what is imported is what was installed.
        copy = environment.root / "project"
        shutil.copytree(
            self.project / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
        for name in SETTINGS:
            if (self.project / name).is_file():
                shutil.copy(self.project / name, copy / name)
        results = environment.root / "tests.xml"
        options = ("-q", "-p", "no:cacheprovider", f"--junitxml={results}", "tests")
        done = environment.python("-m", "pytest", *options, cwd=copy)
        self.show(done.stdout + done.stderr)
        if done.returncode == 5:
            return OwnTests("none")
        return OwnTests("failed" if done.returncode else "ok", _counts(results))


def _counts(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    suites = list(ElementTree.parse(file).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


def _last(text: str, lines: int) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
