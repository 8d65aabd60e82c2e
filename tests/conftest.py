"""Fixtures of the core's tests: fake plugin distributions, and no trace left in the user's directories."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

HEADER = """\
from fusionbench_core.hookspecs import hookimpl
from fusionbench_core import records
"""


def pytest_collection_finish() -> None:
    """What collecting imported is no garbage: no collection needs to look through it again."""
    gc.freeze()


class FakeSite:
    """A directory of installed distributions, put on the import path."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.monkeypatch = monkeypatch
        self.packages: list[str] = []

    def add(
        self,
        distribution: str,
        plugin: str,
        *,
        namespace: str | None = None,
        version: str = "1.0",
        requires: str | None = "fusionbench-core>=1.0,<2",
        files: dict[str, str] | None = None,
    ) -> str:
        """Install a distribution whose module `<package>.plugin` has this source; returns the namespace."""
        package = distribution.replace("-", "_")
        namespace = namespace or package.removeprefix("fb_")
        info = self.root / f"{package}-{version}.dist-info"
        sources = {"__init__.py": "", "plugin.py": HEADER + dedent(plugin), **(files or {})}
        for name, text in sources.items():
            file = self.root / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        info.mkdir()
        needed = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needed}"
        )
        (info / "entry_points.txt").write_text(f"[fusionbench]\n{namespace} = {package}.plugin\n")
        self.packages.append(package)
        return namespace

    def methods(self, distribution: str, *names: str, **options) -> str:
        """Install a distribution that declares these methods, with an implementation each."""
        package = distribution.replace("-", "_")
        records = "".join(
            f"    yield records.MethodRecord(name={name!r}, target='{package}.impl:It', "
            f"summary='about {name}', tags=('t_{name}',))\n"
            for name in names
        )
        files = {
            "impl.py": '''
                from pydantic import BaseModel, Field


                class It(BaseModel):
                    """The method's formula."""

                    density: float = Field(default=0.2, gt=0, le=1, description="fraction kept")
            '''
        }
        source = f"@hookimpl\ndef fb_methods():\n{records}"
        return self.add(distribution, source, **{"files": files, **options})

    def load(self, *, only: bool = True, **options):
        """Load the plugins of this site; `only` leaves out what else is installed."""
        from fusionbench_core.plugins import load_plugins

        if only and "FB_PLUGINS" not in os.environ:
            self.monkeypatch.setenv("FB_PLUGINS", ",".join(self.namespaces()))
        return load_plugins(**options)

    def namespaces(self) -> list[str]:
        points = self.root.glob("*.dist-info/entry_points.txt")
        return sorted({point.read_text().splitlines()[1].partition(" ")[0] for point in points})

    def registry(self):
        from fusionbench_core.registry import Registry

        return Registry(self.load())

    def fb(self, *arguments: str, code: str | None = None, **environment: str) -> subprocess.CompletedProcess:
        """Run `fb`, or some code, in a process of its own."""
        program = code or "from fusionbench_core.__main__ import program; program()"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": str(self.root), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(autouse=True)
def _own_homes(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FB_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("FB_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("FB_PLUGINS", raising=False)


@pytest.fixture
def fake_plugin(tmp_path, monkeypatch):
    """A :class:`FakeSite`; what it imported is forgotten afterwards."""
    from fusionbench_core.plugins import configure

    site = FakeSite(tmp_path / "site", monkeypatch)
    site.root.mkdir()
    monkeypatch.syspath_prepend(str(site.root))
    configure()
    yield site
    configure()
    for name in [name for name in sys.modules if name.partition(".")[0] in site.packages]:
        del sys.modules[name]
