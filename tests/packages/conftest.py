"""Wheels built from the tree, and clean environments that hold nothing of ours but installed wheels."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PathDistribution
from pathlib import Path
from textwrap import dedent
from typing import Any
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest
from build import ProjectBuilder
from pyproject_hooks import quiet_subprocess_runner

from fusionbench_core.testing.validation.environment import Environment, borrow

ROOT = Path(__file__).parents[2]
CORE = "fusionbench-core"
PROJECTS = {
    CORE: ROOT,
    **{path.name.replace("_", "-"): path for path in sorted((ROOT / "plugins").glob("fb_*"))},
}
PLUGINS = [name for name in PROJECTS if name != CORE]
PACKAGES = {name: name.replace("-", "_") for name in PROJECTS}
OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Wheel:
    """A built wheel, and the package it was built from."""

    distribution: str
    path: Path
    sources: frozenset[str]

    @property
    def package(self) -> str:
        return PACKAGES.get(self.distribution, self.distribution.replace("-", "_"))

    @cached_property
    def names(self) -> list[str]:
        with ZipFile(self.path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]

    @property
    def metadata(self) -> PathDistribution:
        name, version, *_ = self.path.name.split("-")
        return PathDistribution(ZipPath(self.path, f"{name}-{version}.dist-info/"))  # type: ignore[arg-type]


class Installed(Environment):
    """An environment of wheels, installed without a network. Third-party packages are there as well.

    Args:
        root: Where it is made.
        third_party: Directory whose packages it sees behind its own.
        wheels: What is installed into it.
    """

    def __init__(self, root: Path, third_party: Path, wheels: list[Path]) -> None:
        super().__init__(root, ["--no-index"], third_party)
        self.empty = root / "empty"
        self.empty.mkdir()
        if wheels:
            done = self.pip("install", "--quiet", "--no-deps", *map(str, wheels))
            assert done.returncode == 0, done.stdout

    def run(self, *words: str, ok: bool = True, cwd: Path | None = None, **env: str):
        """`fb WORDS`; `ok`: it must succeed."""
        return _checked(self.fb(*words, cwd=cwd, **OFFLINE, **env), ok)

    def json(self, *words: str, **options: Any) -> Any:
        """What `fb WORDS --json` prints."""
        return json.loads(self.run(*words, "--json", **options).stdout)

    def run_code(self, text: str, *arguments: str, ok: bool = True, cwd: Path | None = None, **env: str):
        """Run some code; `ok`: it must succeed."""
        return _checked(self.python("-c", dedent(text), *arguments, cwd=cwd, **OFFLINE, **env), ok)


def _checked(done: subprocess.CompletedProcess[str], ok: bool) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0 or not ok, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done


class Environments:
    """Makes environments, each set of distributions once."""

    def __init__(self, root: Path, third_party: Path, wheels: dict[str, Wheel]) -> None:
        self._root, self._third_party, self._wheels = root, third_party, wheels
        self._made: dict[tuple[str, ...], Installed] = {}

    def __call__(self, *distributions: str) -> Installed:
        """The environment in which exactly these are installed."""
        if distributions not in self._made:
            wheels = [self._wheels[name].path for name in distributions]
            self._made[distributions] = self.of(wheels, f"{len(self._made)}")
        return self._made[distributions]

    def of(self, wheels: list[Path], name: str) -> Installed:
        """A new environment in which these files are installed."""
        root = self._root / name
        root.mkdir()
        return Installed(root, self._third_party, wheels)


@pytest.fixture(scope="session")
def projects() -> dict[str, Path]:
    """Distribution -> directory of its pyproject.toml, the core first."""
    return PROJECTS


@pytest.fixture(params=PROJECTS)
def distribution(request) -> str:
    """Each of our distributions."""
    return request.param


@pytest.fixture(params=PLUGINS)
def plugin(request) -> str:
    """Each of our plugins' distributions."""
    return request.param


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> dict[str, Wheel]:
    """All our distributions and two that do not work, built without a network."""
    directory = tmp_path_factory.mktemp("wheels")
    broken = _broken_projects(tmp_path_factory.mktemp("projects"))
    return {name: _build(name, path, directory) for name, path in {**PROJECTS, **broken}.items()}


@pytest.fixture(scope="session")
def third_party(tmp_path_factory) -> Path:
    """Links to all that is installed beside this process, but for first-party packages."""
    return borrow(tmp_path_factory.mktemp("third_party") / "borrowed")


@pytest.fixture(scope="session")
def environments(tmp_path_factory, third_party, wheels) -> Environments:
    """`environments("fusionbench-core", …)`: a clean environment with these installed."""
    return Environments(tmp_path_factory.mktemp("environments"), third_party, wheels)


@pytest.fixture
def core_alone(environments) -> Installed:
    """Only the core is installed."""
    return environments(CORE)


@pytest.fixture
def everything(environments) -> Installed:
    """The core and all our plugins are installed."""
    return environments(*PROJECTS)


@pytest.fixture
def crowded(environments) -> Installed:
    """The core, all our plugins, one that cannot be imported and one for another core are installed."""
    return environments(*PROJECTS, "fb-crash", "fb-future")


def _build(name: str, project: Path, directory: Path) -> Wheel:
    package = project / PACKAGES.get(name, name.replace("-", "_"))
    sources = frozenset(
        path.relative_to(project).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    built = ProjectBuilder(project, runner=quiet_subprocess_runner).build("wheel", directory)
    return Wheel(name, Path(built), sources)


def _broken_projects(directory: Path) -> dict[str, Path]:
    crash = _write_plugin(directory / "crash", "fb-crash", 'raise ImportError("told to fail")\n', ">=1.0,<2")
    future = _write_plugin(directory / "future", "fb-future", "", ">=99,<100")
    return {"fb-crash": crash, "fb-future": future}


def _write_plugin(project: Path, name: str, source: str, core: str) -> Path:
    package = project / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(source)
    (project / "pyproject.toml").write_text(
        dedent(
            f"""\
            [build-system]
            requires = ["hatchling"]
            build-backend = "hatchling.build"

            [project]
            name = "{name}"
            version = "0.1"
            dependencies = ["fusionbench-core{core}"]

            [project.entry-points.fusionbench]
            {name.removeprefix("fb-")} = "{package.name}.plugin"
            """
        )
    )
    return project
