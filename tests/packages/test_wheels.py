"""What the wheels and the source distribution hold, and what their metadata says."""

from __future__ import annotations

import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from build import ProjectBuilder
from packaging.requirements import Requirement
from packaging.version import Version
from pyproject_hooks import quiet_subprocess_runner

import fusionbench_core

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]

MEGABYTE = 10**6
LARGEST = {"fb-clip-tasks": 42 * MEGABYTE, "fb-nlp-tasks": 60 * MEGABYTE}
"""Bytes of the wheels with embedded models and data; all others stay below one megabyte."""

HOLDS = {
    "fusionbench-core": [
        "fusionbench_core/config/presets/fabric/cpu.yaml",
        "fusionbench_core/report/schema_v1.json",
        "fusionbench_core/report/templates/",
    ],
    "fb-clip-tasks": ["fb_clip_tasks/embedded/data/mnist.npz", "fb_clip_tasks/embedded/NOTICE"],
    "fb-nlp-tasks": [
        "fb_nlp_tasks/configs/embedded_text.yaml",
        "fb_nlp_tasks/configs/modelpool/embedded_text.yaml",
        "fb_nlp_tasks/configs/taskpool/embedded_text.yaml",
        "fb_nlp_tasks/embedded/data/spam.jsonl.gz",
        "fb_nlp_tasks/embedded/experts/spam/adapter_model.safetensors",
        "fb_nlp_tasks/embedded/minilm/model.safetensors",
        "fb_nlp_tasks/embedded/minilm/tokenizer.json",
        "fb_nlp_tasks/embedded/minilm/NOTICE",
    ],
}


def core_requirement(wheel) -> Requirement:
    needed = [Requirement(text) for text in wheel.metadata.requires or []]
    (core,) = (one for one in needed if one.name == "fusionbench-core" and one.marker is None)
    return core


def test_a_wheel_holds_every_file_of_its_package_and_nothing_else(wheels, distribution):
    wheel = wheels[distribution]
    inside = {name for name in wheel.names if ".dist-info/" not in name}
    assert inside == wheel.sources


def test_a_wheel_brings_no_tests_scripts_or_compiled_files(wheels, distribution):
    wheel = wheels[distribution]
    assert {name.split("/")[0].partition("-")[0] for name in wheel.names} == {wheel.package}
    assert not [name for name in wheel.names if "/tests/" in name or "/scripts/" in name or "pycache" in name]


def test_a_wheel_is_typed(wheels, distribution):
    assert f"{wheels[distribution].package}/py.typed" in wheels[distribution].names


@pytest.mark.parametrize("distribution", HOLDS, indirect=True)
def test_a_wheel_brings_its_configs_and_data(wheels, distribution):
    names = wheels[distribution].names
    assert [wanted for wanted in HOLDS[distribution] if not any(n.startswith(wanted) for n in names)] == []


def test_a_wheel_is_small(wheels, distribution):
    assert wheels[distribution].path.stat().st_size <= LARGEST.get(distribution, MEGABYTE)


def test_a_wheel_runs_on_any_platform(wheels, distribution):
    assert wheels[distribution].path.name.endswith("-py3-none-any.whl")


def test_metadata_says_licence_summary_and_python(wheels, distribution):
    facts = wheels[distribution].metadata.metadata
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Summary"]
    assert facts["Requires-Python"] == ">=3.10"
    assert facts["Description-Content-Type"] == "text/markdown"


def test_the_core_gives_the_version_of_its_metadata_and_one_script(wheels):
    core = wheels["fusionbench-core"].metadata
    assert core.version == fusionbench_core.__version__
    assert [(point.group, point.name) for point in core.entry_points] == [("console_scripts", "fb")]


def test_a_plugin_has_one_entry_point_named_like_it(wheels, plugin):
    (point,) = wheels[plugin].metadata.entry_points
    package = wheels[plugin].package
    assert (point.group, point.name) == ("fusionbench", package.removeprefix("fb_"))
    assert point.value == f"{package}.plugin"
    assert f"{package}/plugin.py" in wheels[plugin].names


def test_a_plugin_asks_for_this_core_and_not_for_the_next_major(wheels, plugin):
    accepted = core_requirement(wheels[plugin]).specifier
    running = Version(fusionbench_core.__version__)
    assert accepted.contains(running)
    assert not accepted.contains(f"{running.major + 1}.0")
    assert not accepted.contains(f"{running.major - 1}.99")


def test_the_core_asks_for_no_plugin(wheels):
    needed = {Requirement(text).name for text in wheels["fusionbench-core"].metadata.requires or []}
    assert not {name for name in needed if name.startswith("fb-")}


@pytest.fixture(scope="module")
def sdist(projects, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("sdist")
    builder = ProjectBuilder(projects["fusionbench-core"], runner=quiet_subprocess_runner)
    with tarfile.open(builder.build("sdist", directory)) as archive:
        archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (path for path in directory.iterdir() if path.is_dir())
    return unpacked


def test_the_sdist_holds_the_core_and_none_of_its_plugins(sdist):
    top = {path.name for path in sdist.iterdir()}
    assert {"fusionbench_core", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= top
    assert not top & {"plugins", "tests", "docs", "benchmarks"}


def test_the_sdist_holds_every_file_of_the_wheel(sdist, wheels):
    assert {name for name in wheels["fusionbench-core"].sources if not (sdist / name).is_file()} == set()


def test_the_sdist_builds_a_wheel_with_all_it_holds(sdist, tmp_path):
    built = ProjectBuilder(sdist, runner=quiet_subprocess_runner).build("wheel", tmp_path)
    held = {
        path.relative_to(sdist).as_posix() for path in sdist.glob("fusionbench_core/**/*") if path.is_file()
    }
    with ZipFile(built) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == held
