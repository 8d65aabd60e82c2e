"""`fb plugin`, `fb doctor`, and commands that plugins bring."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fusionbench_core.cli import main
from fusionbench_core.plugins import configure, discovery_cache


@pytest.fixture
def fb(fake_plugin, monkeypatch):
    def run(*arguments, everything=False):
        configure()
        if not everything:
            monkeypatch.setenv("FB_PLUGINS", ",".join(fake_plugin.namespaces()))
        return CliRunner().invoke(main, list(arguments), prog_name="fb")

    return run


def mine(done, *names):
    rows = {row["namespace"]: row for row in json.loads(done.stdout)}
    return [rows[name] for name in names]


def test_plugin_list_tells_status_counts_and_causes(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one", "two")
    fake_plugin.add("fb-beta", "import missing_thing")
    fake_plugin.add("fb-gamma", "", requires="fusionbench-core>=99")
    done = fb("plugin", "list", "--json")
    alpha, beta, gamma = mine(done, "alpha", "beta", "gamma")
    assert (alpha["status"], alpha["counts"], alpha["names"]) == (
        "ok",
        {"method": 2},
        {"method": ["alpha/one", "alpha/two"]},
    )
    assert (beta["status"], gamma["status"]) == ("broken", "incompatible")
    assert "missing_thing" in beta["cause"]
    text = fb("plugin", "list")
    assert text.exit_code == 0
    assert "2 methods" in text.stdout


def test_plugin_info_shows_the_traceback_and_the_ways_out(fake_plugin, fb):
    fake_plugin.add("fb-beta", "import missing_thing")
    shown = fb("plugin", "info", "fb-beta").stdout
    assert "Traceback" in shown
    assert "fb plugin disable beta" in shown


def test_a_plugin_is_disabled_and_enabled_by_command(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one")
    assert "alpha is off" in fb("plugin", "disable", "fb-alpha", everything=True).stdout
    assert mine(fb("plugin", "list", "--json", everything=True), "alpha")[0]["status"] == "disabled"
    assert "alpha is on" in fb("plugin", "enable", "alpha", everything=True).stdout
    assert mine(fb("plugin", "list", "--json", everything=True), "alpha")[0]["status"] == "ok"


def test_disabling_an_unknown_plugin_suggests(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one")
    done = fb("plugin", "disable", "alhpa")
    assert done.exit_code == 2
    assert "did you mean 'alpha'?" in done.stderr


COMMANDS = """
@hookimpl
def fb_commands():
    yield records.CommandRecord(name="say_hello", target="fb_alpha.impl:hello", summary="Greets.")
    yield records.CommandRecord(name="list", target="fb_alpha.impl:hello", summary="Shadows.")
    yield records.CommandRecord(name="wrong", target="fb_alpha.impl:wrong", summary="No command.")
"""
IMPLEMENTATION = """
import click

@click.command()
def hello():
    click.echo("hello")

wrong = 3
"""


def test_a_plugins_command_runs_and_appears_in_the_help(fake_plugin, fb):
    fake_plugin.add("fb-alpha", COMMANDS, files={"impl.py": IMPLEMENTATION})
    assert fb("say-hello").stdout == "hello\n"
    assert "say-hello" in fb("--help").stdout


def test_help_does_not_import_the_commands(fake_plugin, fb):
    fake_plugin.add("fb-alpha", COMMANDS, files={"impl.py": "raise SystemExit('imported')"})
    assert fb("--help").exit_code == 0
    done = fb("say-hello")
    assert done.exit_code == 3
    assert "fb-alpha 1.0" in done.stderr


def test_a_plugin_cannot_shadow_a_built_in_command(fake_plugin, fb):
    fake_plugin.add("fb-alpha", COMMANDS, files={"impl.py": IMPLEMENTATION})
    assert "hello" not in fb("list").stdout
    assert fb("alpha/list").stdout == "hello\n"
    assert "alpha/list" in fb("--help").stdout


def test_a_target_that_is_no_command_is_the_plugins_fault(fake_plugin, fb):
    fake_plugin.add("fb-alpha", COMMANDS, files={"impl.py": IMPLEMENTATION})
    done = fb("wrong")
    assert done.exit_code == 3
    assert "not a click command" in done.stderr


def test_the_listing_of_commands_is_kept_until_a_plugin_changes(fake_plugin, fb, monkeypatch):
    monkeypatch.setattr(discovery_cache, "_SETTLED_SECONDS", -1.0)
    fake_plugin.add("fb-alpha", COMMANDS, files={"impl.py": IMPLEMENTATION})
    fb("--help")
    assert ("say-hello", "Greets.") in discovery_cache.read_commands()
    plugin = fake_plugin.root / "fb_alpha" / "plugin.py"
    plugin.write_text(plugin.read_text() + "\n")
    assert discovery_cache.read_commands() is None


def test_a_local_plugin_may_follow_the_command(fake_plugin, fb, tmp_path):
    file = tmp_path / "fbt_local.py"
    file.write_text(
        "from fusionbench_core.hookspecs import hookimpl\n"
        "from fusionbench_core.records import MethodRecord\n"
        "@hookimpl\n"
        "def fb_methods():\n"
        "    yield MethodRecord(name='mine', target='fbt_local:Mine', summary='')\n"
    )
    done = fb("list", "methods", "--plugin", str(file), "--json")
    assert "fbt_local/mine" in [method["name"] for method in json.loads(done.stdout)]
    missing = fb("list", "methods", f"--plugin={tmp_path / 'none.py'}")
    assert missing.exit_code == 2
    assert "none.py" in missing.stderr


def test_no_plugins_hides_everything_installed(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one")
    assert json.loads(fb("list", "methods", "--no-plugins", "--json").stdout) == []


def test_doctor_reports_what_must_be_mended(fake_plugin, fb):
    fake_plugin.add("fb-beta", "import missing_thing")
    fake_plugin.add(
        "fb-gamma",
        """
        print("loud")

        @hookimpl
        def fb_checks():
            yield records.CheckRecord(name="disk", target="fb_gamma.impl:check", summary="")
        """,
        files={"impl.py": "def check():\n    yield 'the disk is old'\n"},
    )
    done = fb("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 1
    assert report["ok"] is False
    told = {finding["what"]: finding for finding in report["findings"]}
    broken = next(text for text in told if text.startswith("plugin beta is broken"))
    assert "pip install" in told[broken]["fix"]
    assert "gamma/disk: the disk is old" in told
    assert told["plugin gamma prints while loading: loud"]["level"] == "warning"


def test_doctor_finds_names_that_are_declared_twice(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one", "one")
    whats = [finding["what"] for finding in json.loads(fb("doctor", "--json").stdout)["findings"]]
    assert "the method alpha/one is declared 2 times, by fb-alpha" in whats


def test_doctor_finds_requirements_that_are_not_met(fake_plugin, fb):
    fake_plugin.add("fb-alpha", "", requires="click>=99")
    done = fb("doctor", "--json")
    whats = [finding["what"] for finding in json.loads(done.stdout)["findings"]]
    assert any(what.startswith("fb-alpha needs click>=99; click ") for what in whats)
