"""A new plugin is complete: it installs, loads and passes the kit before a line is changed."""

from __future__ import annotations

import ast
import subprocess
import sys
from zipfile import ZipFile

import pytest
import yaml
from build import ProjectBuilder
from click.testing import CliRunner
from packaging.requirements import Requirement
from pyproject_hooks import quiet_subprocess_runner

import fusionbench_core
from fusionbench_core.cli import main
from fusionbench_core.errors import ConfigError
from fusionbench_core.plugins import configure, installed_plugins
from fusionbench_core.registry import default_registry
from fusionbench_core.scaffold import KINDS, names_for, new_plugin, render
from fusionbench_core.scaffold.names import TAKEN
from fusionbench_core.testing import run_checks, subjects_of

NAMES = names_for("fbt-demo")


@pytest.mark.parametrize("text", ["my-method", "my_method", "fb-my-method", "fb_my_method"])
def test_dashes_underscores_and_the_prefix_mean_the_same_name(text):
    names = names_for(text)
    assert (names.distribution, names.package, names.namespace) == (
        "fb-my-method",
        "fb_my_method",
        "my_method",
    )
    assert (names.cls, names.constant, names.title) == ("MyMethod", "MY_METHOD", "My method")


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("MyMethod", "my-method"),
        ("my method", "my-method"),
        ("2nd-try", "nd-try"),
        ("a--b", "a-b"),
        ("größe", "gr-e"),
        ("../evil", "evil"),
        ("", None),
        ("fb-", None),
        ("class", None),
        ("none", None),
        ("task", None),
        ("merging/mine", "merging-mine"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_allowed_form(text, better):
    with pytest.raises(ConfigError, match="cannot be a plugin's name") as caught:
        names_for(text)
    assert "a name is words of lower-case letters" in str(caught.value)
    assert (f"did you mean '{better}'?" in str(caught.value)) == (better is not None)


@pytest.mark.parametrize("text", ["merging", "fb-clip-tasks", "nlp_tasks"])
def test_the_name_of_a_first_party_plugin_is_refused_with_another(text):
    with pytest.raises(ConfigError, match="is a plugin of FusionBench itself") as caught:
        names_for(text)
    other = f"my-{text.removeprefix('fb-').replace('_', '-')}"
    assert f"try {other!r}" in str(caught.value)
    assert names_for(other).namespace == other.replace("-", "_")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_compiles_parses_and_ends_with_a_line(kind):
    files = render(NAMES, kind)
    for name, text in files.items():
        assert text.endswith("\n") or name.endswith("py.typed")
        assert "<<" not in text
        assert "<%" not in text
        if name.endswith(".py"):
            compile(text, name, "exec")
        if name.endswith((".yaml", ".yml")):
            assert yaml.safe_load(text)


@pytest.mark.parametrize("kind", KINDS)
def test_no_class_or_record_can_hide_a_name_that_the_modules_use(kind):
    used = set()
    for name, text in render(NAMES, kind).items():
        if name.endswith(".py") and not name.endswith("plugin.py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Name):
                    used.add(node.id)
                elif isinstance(node, ast.alias | ast.ClassDef):
                    used.add(node.name)
    ours = {NAMES.cls, NAMES.constant, "OSError"}
    assert {name for name in used if name[0].isupper()} - ours <= TAKEN


def test_a_name_that_the_modules_use_gets_another_class():
    assert (names_for("tensor").cls, names_for("version").constant) == ("MyTensor", "MY_VERSION")


@pytest.mark.parametrize("name", ["fbt-demo", "a", "a-method-with-a-rather-long-name"])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_clean_for_ruff(kind, name, tmp_path):
    new_plugin(names_for(name), kind, tmp_path / "new")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
        cwd=tmp_path / "new",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_formatted(kind, tmp_path):
    new_plugin(NAMES, kind, tmp_path / "new")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--no-cache", "--diff", "."],
        cwd=tmp_path / "new",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(params=KINDS)
def installed(request, tmp_path, monkeypatch):
    """A new plugin, built as a wheel and unpacked where Python looks for packages."""
    new_plugin(NAMES, request.param, tmp_path / "new")
    built = ProjectBuilder(tmp_path / "new", runner=quiet_subprocess_runner).build("wheel", tmp_path)
    with ZipFile(built) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("FB_PLUGINS", NAMES.namespace)
    configure()
    yield installed_plugins().get(NAMES.namespace)
    configure()
    for name in [name for name in sys.modules if name.partition(".")[0] == NAMES.package]:
        del sys.modules[name]


def test_a_new_plugin_passes_the_fast_checks(installed):
    results = list(run_checks(subjects_of(installed, default_registry()), "fast"))
    assert {r.check: r.message for r in results if r.status not in ("passed", "skipped")} == {}
    assert {"FP-101", "FP-102", "FP-105", "FP-111"} <= {r.check for r in results if r.status == "passed"}


def test_a_new_plugin_asks_for_this_core_and_not_for_the_next_major(installed):
    accepted = Requirement(f"fusionbench-core{installed.requires}").specifier
    major = int(fusionbench_core.__version__.partition(".")[0])
    assert accepted.contains(fusionbench_core.__version__)
    assert not accepted.contains(f"{major + 1}.0")


def test_the_command_writes_a_project_and_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plugin", "new", "my-method"], standalone_mode=False)
    assert done.exit_code == 0
    assert "fb run method=my_method" in done.stdout
    assert (tmp_path / "fb-my-method" / "fb_my_method" / "my_method.py").is_file()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        new_plugin(NAMES, "method", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_making_a_plugin_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom fusionbench_core.cli import main\n"
        "main(['plugin', 'new', 'light'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'pydantic', 'hydra', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
