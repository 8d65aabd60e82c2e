"""A new plugin validates with two cores, from wheels, in environments of its own."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from fusionbench_core.scaffold import names_for, new_plugin
from fusionbench_core.testing.validation import validate

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages"), pytest.mark.timeout(900)]


@pytest.fixture
def cores(wheels, tmp_path) -> tuple[Path, str, str]:
    """A directory with this core as the first of its minor version and of the next, and their versions."""
    directory = tmp_path / "links"
    directory.mkdir()
    major, minor, *_ = wheels["fusionbench-core"].metadata.version.split(".")
    versions = f"{major}.{minor}.0", f"{major}.{int(minor) + 1}.0"
    for version in versions:
        _as_version(wheels["fusionbench-core"], version, directory)
    return directory, *versions


def test_a_new_plugin_is_conformant_with_the_oldest_and_the_newest_core(cores, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    links, lowest, newest = cores
    new_plugin(names_for("new-source"), "source", tmp_path / "project")
    sources = ["--no-index", "--find-links", str(links)]
    found = validate(tmp_path / "project", level="fast", sources=sources, borrowed=True)
    assert [(run.asked, run.core, run.status, run.why) for run in found.runs] == [
        (("newest",), newest, "ok", ""),
        (("lowest",), lowest, "ok", ""),
    ]
    assert found.ok
    assert all(run.tests is not None and run.tests.counts["passed"] > 0 for run in found.runs)


def _as_version(core, version: str, directory: Path) -> None:
    was = core.metadata.version
    here, there = f"core-{was}.dist-info", f"core-{version}.dist-info"
    with ZipFile(core.path) as old, ZipFile(directory / core.path.name.replace(was, version), "w") as new:
        for name in core.names:
            data = old.read(name)
            if here in name:
                data = data.replace(f"Version: {was}".encode(), f"Version: {version}".encode())
                data = data.replace(here.encode(), there.encode())
            new.writestr(name.replace(here, there), data)
