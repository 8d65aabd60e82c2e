"""What `fb plugin validate` makes of a wheel, of pip's answers and of results; pip itself is not run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from click.testing import CliRunner

from fusionbench_core.cli import main
from fusionbench_core.errors import ConfigError
from fusionbench_core.testing.validation import Run, Validation, validate
from fusionbench_core.testing.validation.environment import Environment, borrow
from fusionbench_core.testing.validation.report import OwnTests
from fusionbench_core.testing.validation.wheel import read_wheel

WORKFLOW = Path(__file__).parents[2] / ".github/workflows/plugin-ci.yml"


def pips_complaint(wanted: str, because: str, versions: str) -> str:
    """What pip 23 to 26 print where no version fits."""
    return (
        f"ERROR: Could not find a version that satisfies the requirement {wanted} {because}"
        f"(from versions: {versions})\nERROR: No matching distribution found for {wanted}\n"
    )


NO_CORE = pips_complaint("fusionbench-core==1.0", "", "1.2.0, 1.3.0")
NO_CORE_AT_ALL = pips_complaint("fusionbench-core<2,>=1.0", "(from fb-mine) ", "none")
NO_TORCH = pips_complaint("torch>=99", "(from fusionbench-core) ", "2.8.0")
REPORT = {"schema": "fusionbench-check/1", "conformant": True, "counts": {"passed": 30}}
JUNIT = '<testsuites><testsuite tests="5" failures="{failures}" errors="0" skipped="1"/></testsuites>'


def make_wheel(directory: Path, core: str | None = ">=1.0,<2", extra: str = "test") -> Path:
    lines = ["Metadata-Version: 2.4", "Name: fb-mine", "Version: 0.1", f"Provides-Extra: {extra}"]
    lines += ["Requires-Dist: torch>=2.4"]
    lines += [f"Requires-Dist: fusionbench-core{core}"] if core is not None else []
    path = directory / "fb_mine-0.1-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("fb_mine-0.1.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


class FakeEnvironment:
    """An environment whose pip, checks and tests answer what they are told.

    `answers` maps the core that is installed to pip's complaint, or to None if it installs.
    """

    answers: dict[str, str | None]
    newest = "1.3.0"
    conformant = True
    failures = 0
    asked: list[tuple[str, ...]]

    def __init__(self, root, sources=(), borrowed=None):
        self.root, self.sources, self.core = root, sources, ""
        root.mkdir(parents=True)

    def pip(self, command, *words):
        type(self).asked.append((command, *words))
        wanted = next(word for word in words if word.startswith("fusionbench-core"))
        self.core = wanted.partition("==")[2] or self.newest
        complaint = type(self).answers.get(self.core)
        return subprocess.CompletedProcess([], 1 if complaint else 0, complaint or "", "")

    def version(self, distribution):
        return self.core

    def fb(self, *words):
        Path(words[words.index("--output") + 1]).write_text(
            json.dumps({**REPORT, "conformant": self.conformant})
        )
        return subprocess.CompletedProcess([], 0, "::notice::checked", "")

    def python(self, *words, cwd=None):
        results = next(word for word in words if word.startswith("--junitxml=")).partition("=")[2]
        Path(results).write_text(JUNIT.format(failures=self.failures))
        assert (cwd / "tests" / "test_it.py").is_file()
        assert not (cwd / "fb_mine").exists()
        return subprocess.CompletedProcess([], 1 if self.failures else 0, "tested", "")


@pytest.fixture
def environment(monkeypatch):
    fake = type("Fake", (FakeEnvironment,), {"answers": {}, "asked": []})
    monkeypatch.setattr("fusionbench_core.testing.validation.session.Environment", fake)
    return fake


def project_of(path: Path) -> Path:
    (path / "tests").mkdir()
    (path / "tests" / "test_it.py").write_text("")
    (path / "fb_mine").mkdir()
    return path


@pytest.fixture
def checked(environment, tmp_path, monkeypatch):
    """Validate a project whose wheel is there already."""
    wheel = make_wheel(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    project_of(project)
    monkeypatch.setattr(
        "fusionbench_core.testing.validation.session._wheel", lambda *arguments: read_wheel(wheel)
    )
    return lambda **options: validate(project, **options)


@pytest.mark.parametrize(
    ("claim", "lowest"),
    [
        (">=1.2,<2", "1.2"),
        ("~=1.4", "1.4"),
        ("==1.3.*", "1.3"),
        ("==1.2.3", "1.2.3"),
        ("<2,>=1.0,!=1.1", "1.0"),
        (">1.2,<2", None),
        ("<2", None),
        ("", None),
    ],
)
def test_the_oldest_core_is_what_the_metadata_claims(tmp_path, claim, lowest):
    assert read_wheel(make_wheel(tmp_path, claim)).lowest_core == lowest


def test_the_extra_for_tests_is_installed_if_there_is_one(tmp_path):
    wheel = make_wheel(tmp_path)
    assert read_wheel(wheel).installable == f"{wheel}[test]"
    assert read_wheel(make_wheel(tmp_path, extra="docs")).installable == str(wheel)


def test_a_wheel_that_claims_no_core_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not depend on fusionbench-core"):
        read_wheel(make_wheel(tmp_path, core=None))


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "bad.whl").write_text("nothing")
    with pytest.raises(ConfigError, match="is no wheel"):
        read_wheel(tmp_path / "bad.whl")


def test_both_cores_are_installed_and_checked(checked, environment):
    found = checked()
    assert [(run.asked, run.core, run.status) for run in found.runs] == [
        (("newest",), "1.3.0", "ok"),
        (("lowest",), "1.0", "ok"),
    ]
    assert found.exit_code == 0
    assert [words[2] for words in environment.asked] == ["fusionbench-core<2,>=1.0", "fusionbench-core==1.0"]
    assert found.runs[0].tests == OwnTests("ok", {"passed": 4, "failed": 0, "skipped": 1})


def test_a_core_that_is_both_is_run_once(checked, environment):
    environment.newest = "1.0.0"
    (run,) = checked().runs
    assert (run.asked, run.status) == (("newest", "lowest"), "ok")
    assert len(environment.asked) == 1


@pytest.mark.parametrize(
    ("core", "said", "versions"),
    [("1.0", NO_CORE, "1.2.0, 1.3.0"), ("1.3.0", NO_CORE_AT_ALL, "none")],
)
def test_a_core_that_cannot_be_had_is_told_apart(checked, environment, core, said, versions):
    environment.answers = {core: said}
    found = checked()
    (missing,) = (run for run in found.runs if run.status == "unavailable")
    assert f"cannot be had where pip looks; versions there: {versions}" in missing.why
    assert found.exit_code == 5


def test_another_package_that_cannot_be_had_is_the_plugins_fault(checked, environment):
    environment.answers = {"1.3.0": NO_TORCH}
    found = checked(cores="newest")
    assert found.runs[0].status == "broken"
    assert "torch>=99" in found.runs[0].why
    assert found.exit_code == 1


def test_failed_checks_and_failed_tests_are_both_told(checked, environment):
    environment.conformant, environment.failures = False, 2
    found = checked(cores="newest")
    assert found.runs[0].why == "required checks failed and its tests failed"
    assert found.exit_code == 1
    assert str(found.runs[0].tests) == "2 passed, 2 failed, 1 skipped"


@pytest.mark.parametrize(
    ("statuses", "message", "colour"),
    [
        (("ok", "ok"), "conformant with 1.0 and 1.1", "brightgreen"),
        (("ok", "failed"), "not conformant", "red"),
        (("ok", "unavailable"), "core not available", "lightgrey"),
    ],
)
def test_the_badge_is_one_for_shields(statuses, message, colour):
    runs = tuple(Run(("lowest",), f"1.{index}", status) for index, status in enumerate(statuses))
    badge = json.loads(Validation("fb-mine 0.1", "x.whl", "0", ">=1.0", runs).to_badge())
    assert badge == {"schemaVersion": 1, "label": "FusionBench", "message": message, "color": colour}


def test_the_command_leaves_a_report_and_a_badge(checked, environment, tmp_path):
    (tmp_path / "project" / "pyproject.toml").write_text("")
    words = ["plugin", "validate", str(tmp_path / "project"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words, standalone_mode=False)
    assert done.return_value == 0
    assert "::notice::checked" in done.stdout
    report = json.loads((tmp_path / "out" / "fusionbench-check.json").read_text())
    assert (report["schema"], report["ok"]) == ("fusionbench-validation/1", True)
    assert [run["check"] for run in report["runs"]] == [REPORT, REPORT]
    assert json.loads((tmp_path / "out" / "fusionbench-badge.json").read_text())["schemaVersion"] == 1


def test_a_directory_without_a_project_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a Python project"):
        validate(tmp_path)


def test_secrets_reach_neither_checks_nor_pip(tmp_path, monkeypatch):
    secrets = {"GITHUB_TOKEN": "1", "HF_TOKEN": "2", "AWS_SECRET_ACCESS_KEY": "3", "MY_PASSWORD": "4"}
    for name, value in {**secrets, "PIP_INDEX_URL": "https://me:secret@index"}.items():
        monkeypatch.setenv(name, value)
    environment = Environment(tmp_path / "here")
    code = "import os; print('\\n'.join(os.environ))"
    seen = set(environment.python("-c", code).stdout.split())
    assert seen & {*secrets, "PIP_INDEX_URL"} == set()
    assert "HOME" in seen


def test_borrowed_packages_hold_no_core_and_no_plugin(tmp_path):
    names = {path.name.partition("-")[0] for path in borrow(tmp_path / "borrowed").iterdir()}
    assert {"torch", "click", "pluggy"} <= names
    assert not {name for name in names if name.startswith(("fusionbench_core", "fb_"))}


def test_the_workflow_gives_strangers_nothing():
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    assert list(workflow[True]) == ["workflow_call"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    assert job["strategy"]["matrix"]["core"] == ["lowest", "newest"]
    for step in job["steps"]:
        # Expressions in a script would let an input run code.
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
