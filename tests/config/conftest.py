"""A registry with two methods, and a directory of configs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusionbench_core.plugins import Plugin
from fusionbench_core.records import ConfigRecord, MethodRecord
from fusionbench_core.registry import Registry

NAMES = ("task_arithmetic", "ties_merging")


def plugin(namespace, *methods, configs=()):
    made = Plugin(namespace=namespace, distribution=f"fb-{namespace}", version="1.0", status="ok")
    declared = tuple(
        MethodRecord(name=name, target=f"{namespace}.impl:It", summary="", origin=made.origin)
        for name in methods
    )
    presets = tuple(replace(record, origin=made.origin) for record in configs)
    return replace(made, records={"method": declared, "config": presets})


@pytest.fixture
def make_plugin():
    return plugin


@pytest.fixture
def write_files():
    return write


@pytest.fixture
def registry():
    return Registry([plugin("merging", *NAMES)])


@pytest.fixture
def with_presets(tmp_path, monkeypatch):
    """Make a registry whose plugin also ships preset packages with these files."""

    def make(files, *, default=None, namespaces=("merging",)):
        site = tmp_path / "site"
        monkeypatch.syspath_prepend(str(site))
        plugins = []
        for namespace in namespaces:
            package = f"fbt_{namespace}_presets"
            write(site / package / "inner", files)
            # A preset package is data: composing must not run this.
            (site / package / "__init__.py").write_text("raise RuntimeError('imported')")
            record = ConfigRecord(package=f"{package}.inner", default=default)
            plugins.append(plugin(namespace, *NAMES, configs=[record]))
        return Registry(plugins)

    return make


def write(directory, files):
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


@pytest.fixture
def configs(tmp_path):
    """The user's own directory of configs."""
    files = {
        "mine.yaml": (
            "defaults:\n- method: task_arithmetic\n- modelpool: two\n- _self_\n"
            "method:\n  scaling_factor: 0.3\nmodelpool:\n  scope: all\nseed: 3\n"
        ),
        "plain.yaml": "method: {name: task_arithmetic, scaling_factor: 0.3}\nmodelpool: {models: {a: x}}\n",
        "modelpool/two.yaml": "models: {a: one, b: two}\n",
        "modelpool/three.yaml": "models: {a: 1, b: 2, c: 3}\n",
        "taskpool/cars.yaml": "tasks: [cars]\n",
        "method/tuned.yaml": "name: ties_merging\ndensity: 0.1\n",
    }
    return write(tmp_path / "configs", files)
