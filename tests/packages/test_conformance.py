"""Every plugin of the repository passes the whole conformance kit, from wheels: together, and alone."""

from __future__ import annotations

import json

import pytest

PLUGINS = ("fb-clip-tasks", "fb-ensemble", "fb-merging", "fb-mixing", "fb-nlp-tasks")

# The many methods of fb-merging take minutes, each of them seconds.
pytestmark = [pytest.mark.install, pytest.mark.timeout(1200)]
EACH = pytest.mark.parametrize("plugin", PLUGINS)


def failures(environment, plugin):
    """What the full level does not accept in a plugin, one line a fault."""
    names = environment.json("plugin", "info", plugin)["names"]
    subjects = {plugin.removeprefix("fb-").replace("-", "_")}
    subjects |= {name for kind in ("method", "source", "task") for name in names.get(kind, ())}
    done = environment.run(
        "plugin", "check", plugin, "--level", "full", "--format", "json", "--jobs", "1", ok=False
    )
    report = json.loads(done.stdout)
    assert {result["subject"] for result in report["results"]} == subjects
    assert done.returncode == (0 if report["conformant"] else 1)
    return [
        f"{result['check']} {result['subject']}: {result['message']}"
        for result in report["results"]
        if result["status"] in ("failed", "error", "xpassed")
    ]


@EACH
@pytest.mark.xdist_group("packages")
def test_all_plugins_together_are_conformant(everything, plugin):
    assert failures(everything, plugin) == []


@EACH
@pytest.mark.xdist_group("packages-alone")
def test_each_plugin_alone_with_the_core_is_conformant(environments, plugin):
    assert failures(environments("fusionbench-core", plugin), plugin) == []


def test_no_plugin_is_left_out(projects):
    assert set(PLUGINS) == set(projects) - {"fusionbench-core"}
