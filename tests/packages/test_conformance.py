"""Every plugin of the repository passes the whole conformance kit, from wheels: together, and alone."""

from __future__ import annotations

import json

import pytest

PLUGINS = ("fb-clip-tasks", "fb-ensemble", "fb-mixing", "fb-nlp-tasks")
# The many methods of fb-merging are checked in parts, none of which takes too long for one test.
PARTS = [*((plugin, 0, 1) for plugin in PLUGINS), *(("fb-merging", part, 2) for part in range(2))]

pytestmark = [pytest.mark.install, pytest.mark.timeout(900)]
EACH = pytest.mark.parametrize(("plugin", "part", "of"), PARTS, ids=lambda value: str(value))


def failures(environment, plugin, part, of):
    """What the full level does not accept in a part of a plugin, one line a fault."""
    names = environment.json("plugin", "info", plugin)["names"]
    subjects = [plugin.removeprefix("fb-").replace("-", "_")]
    subjects += [name for kind in ("method", "source", "task") for name in names.get(kind, ())]
    chosen = [word for name in subjects[part::of] for word in ("--subject", name)]
    words = ["plugin", "check", plugin, "--level", "full", "--format", "json", "--jobs", "1"]
    done = environment.run(*words, *chosen, ok=False)
    report = json.loads(done.stdout)
    assert {result["subject"] for result in report["results"]} == set(subjects[part::of])
    assert done.returncode == (0 if report["conformant"] else 1)
    return [
        f"{result['check']} {result['subject']}: {result['message']}"
        for result in report["results"]
        if result["status"] in ("failed", "error", "xpassed")
    ]


@EACH
@pytest.mark.xdist_group("packages")
def test_all_plugins_together_are_conformant(everything, plugin, part, of):
    assert failures(everything, plugin, part, of) == []


@EACH
@pytest.mark.xdist_group("packages-alone")
def test_each_plugin_alone_with_the_core_is_conformant(environments, plugin, part, of):
    assert failures(environments("fusionbench-core", plugin), plugin, part, of) == []


def test_no_plugin_is_left_out(projects):
    assert {plugin for plugin, _, _ in PARTS} == set(projects) - {"fusionbench-core"}
