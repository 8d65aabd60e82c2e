"""The core without any plugin: everything answers, and says what to install."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]


def test_help_names_the_commands(core_alone):
    shown = core_alone.run("--help").stdout
    assert all(command in shown for command in ("run", "list", "plugin", "doctor"))


def test_no_method_is_listed(core_alone):
    assert core_alone.json("list", "methods") == []


def test_an_empty_listing_says_what_to_install(core_alone):
    done = core_alone.run("list", "methods")
    assert "pip install" in done.stdout + done.stderr


def test_no_plugin_is_listed(core_alone):
    assert core_alone.json("plugin", "list") == []


def test_the_core_brings_its_own_presets(core_alone):
    names = {row["name"] for row in core_alone.json("list", "configs")}
    assert {"fabric/cpu", "report/all"} <= names


def test_the_doctor_finds_nothing_to_mend(core_alone):
    report = core_alone.json("doctor")
    assert report["ok"]
    assert report["plugins"] == {}


def test_a_method_of_a_plugin_that_is_not_installed_names_the_plugin(core_alone):
    done = core_alone.run("show", "ties_merging", ok=False)
    assert done.returncode != 0
    assert "pip install fb-merging" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_without_plugins_says_what_is_missing(core_alone):
    done = core_alone.run("run", cwd=core_alone.empty, ok=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert list(core_alone.empty.iterdir()) == []
