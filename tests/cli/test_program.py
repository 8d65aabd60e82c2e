"""The program as a whole: start-up, exit statuses, streams."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from fusionbench_core import errors
from fusionbench_core.cli import COMMANDS, main
from fusionbench_core.cli.errors import guarded
from fusionbench_core.cli.group import hoist

HEAVY = ("torch", "pydantic", "hydra", "omegaconf", "rich", "numpy", "lightning", "transformers")
PROBE = f"""
import sys
from fusionbench_core.cli import main
try:
    main(prog_name='fb')
except SystemExit as end:
    print(end.code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list", "methods"],
        ["list", "configs"],
        ["plugin", "list"],
        ["search", "x"],
        ["--version"],
    ],
)
def test_light_commands_import_nothing_heavy(fake_plugin, words):
    fake_plugin.methods("fb-alpha", "one")
    done = fake_plugin.fb(*words, code=PROBE)
    assert done.stderr.splitlines()[-1] == "0 []"


def test_help_imports_no_plugin_machinery_the_second_time(fake_plugin, monkeypatch):
    fake_plugin.methods("fb-alpha", "one")
    code = PROBE.replace(repr(HEAVY), "('pluggy', 'importlib_metadata', 'fb_alpha')").replace(
        "import sys\n",
        "import sys\nfrom fusionbench_core.plugins import discovery_cache\n"
        "discovery_cache._SETTLED_SECONDS = -1\n",
    )
    first = fake_plugin.fb("--help", code=code)
    assert "'fb_alpha'" in first.stderr.splitlines()[-1]
    assert fake_plugin.fb("--help", code=code).stderr.splitlines()[-1] == "0 []"


def test_completion_knows_names_without_torch(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    done = fake_plugin.fb(
        code=PROBE, _FB_COMPLETE="bash_complete", COMP_WORDS="fb show alpha", COMP_CWORD="2"
    )
    assert "plain,alpha/one" in done.stdout
    assert "[]" in done.stderr


def test_every_kind_of_broken_plugin_leaves_the_listing_whole(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    fake_plugin.add("fb-beta", "raise SystemExit(7)")
    fake_plugin.add("fb-gamma", "print('noise')\nimport missing_thing")
    done = fake_plugin.fb("list", "methods", "--json")
    assert done.returncode == 0
    assert "alpha/one" in [method["name"] for method in json.loads(done.stdout)]
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell):
    done = CliRunner().invoke(main, ["completion", shell], prog_name="fb")
    assert done.exit_code == 0
    assert "_FB_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (errors.ConfigError("wrong key", fix="mend it"), 2, "error: wrong key\n  fix   mend it\n"),
        (errors.PluginBroken("lame"), 3, "error: lame\n"),
        (errors.PlanError("too big"), 4, "error: too big\n"),
        (errors.NotFound("gone"), 5, "error: gone\n"),
        (errors.MethodError("nan"), 6, "error: nan\n"),
        (errors.TaskError("task"), 7, "error: task\n"),
        (errors.OutputError("disk"), 8, "error: disk\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (click.UsageError("odd"), 2, "error: odd\n"),
        (click.exceptions.Exit(5), 5, ""),
    ],
)
def test_each_error_has_its_status_and_goes_to_stderr(capsys, error, status, says):
    def fail():
        raise error

    with pytest.raises(SystemExit) as ended:
        guarded(fail)
    assert ended.value.code == status
    assert capsys.readouterr() == ("", says)


def test_an_unexpected_failure_is_short_unless_debugging(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: 1 / 0)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in told
    assert "FB_DEBUG=1" in told
    assert "Traceback" not in told
    monkeypatch.setenv("FB_DEBUG", "1")
    with pytest.raises(SystemExit):
        guarded(lambda: 1 / 0)
    assert "Traceback" in capsys.readouterr().err


def test_what_a_command_returns_is_its_status():
    for answer, status in ((None, 0), (3, 3), ("text", 0)):
        with pytest.raises(SystemExit) as ended:
            guarded(lambda answer=answer: answer)
        assert ended.value.code == status


def test_an_unknown_command_gets_a_suggestion():
    done = CliRunner().invoke(main, ["lst"], prog_name="fb")
    assert done.exit_code == 2
    assert "did you mean 'list'?" in done.stderr


def test_a_wrong_option_shows_the_usage():
    done = CliRunner().invoke(main, ["list", "--jsno"], prog_name="fb")
    assert done.exit_code == 2
    assert done.stderr.startswith("Usage: fb list")
    assert "error: " in done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_ends_its_help_with_examples(name):
    done = CliRunner().invoke(main, [name, "--help"], prog_name="fb")
    assert done.exit_code == 0
    lines = done.stdout.rstrip().splitlines()
    assert any(line.strip() == "Examples:" for line in lines)
    assert "fb " in lines[-1]


def test_options_about_plugins_may_stand_anywhere():
    assert hoist(["run", "a=1", "--plugin", "x.py", "--no-plugins"]) == [
        "--plugin",
        "x.py",
        "--no-plugins",
        "run",
        "a=1",
    ]
    assert hoist(["run", "--", "--no-plugins"]) == ["run", "--", "--no-plugins"]


def test_a_table_of_a_terminal_keeps_square_brackets(monkeypatch, capsys):
    import sys

    from fusionbench_core.cli.output import table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    table(("name", "summary"), [("a", "the [mean] of all")])
    assert "the [mean] of all" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["plugin"]])
def test_a_group_without_a_command_shows_its_help_and_nothing_else(words):
    done = CliRunner().invoke(main, words, prog_name="fb")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == CliRunner().invoke(main, [*words, "--help"], prog_name="fb").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plugn"], "there is no command 'plugn'\n  fix   did you mean 'plugin'"),
        (["plugin", "chek"], "there is no command 'plugin chek'\n  fix   did you mean 'check'?"),
        (
            ["plugin", "qqq"],
            "there is no command 'plugin qqq'\n  fix   `fb plugin --help` lists the commands",
        ),
    ],
)
def test_an_unknown_command_of_any_group_is_told_with_the_nearest_one(words, says):
    done = CliRunner().invoke(main, words, prog_name="fb")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {says}")
