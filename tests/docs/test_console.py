"""The commands that the tutorials show print what the pages say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from pages import ROOT, Block, Command, blocks, commands, difference, pages

PAGES = [page for page in pages() if any(block.run for block in blocks(page))]


class Shell:
    """An empty directory and an environment in which the blocks of one page run, one after the other."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        self.site = directory / ".site"
        self.status = 0
        programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FB_")},
            "PATH": programs,
            "PYTHONPATH": str(self.site),
            "HOME": str(home),
            "FB_CACHE_HOME": str(home / "cache"),
            "FB_CONFIG_HOME": str(home / "config"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        }

    def write(self, block: Block) -> None:
        """Write the file that a titled block shows."""
        path = self.directory / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def run(self, command: Command) -> str:
        """Standard output of a command, and the errors if it failed."""
        if command.text == "echo $?":
            return str(self.status)
        done = subprocess.run(
            ["bash", "-c", self._offline(command.text)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.status = done.returncode
        return done.stdout + (done.stderr if done.returncode else "")

    def _offline(self, text: str) -> str:
        """Installing goes into a directory of the test's own, without the network."""
        if not text.startswith("pip install -e "):
            return text
        folder = text.rpartition(" ")[2]
        return (
            f"{sys.executable} -m pip install --disable-pip-version-check --no-deps --no-index "
            f"--no-build-isolation --target {self.site} {folder}"
        )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_quick_commands_print_what_the_page_says(page, tmp_path, tmp_path_factory):
    _check(page, Shell(tmp_path, tmp_path_factory.mktemp("home")), slow=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_all_commands_print_what_the_page_says(page, tmp_path, tmp_path_factory):
    _check(page, Shell(tmp_path, tmp_path_factory.mktemp("home")), slow=True)


def _check(page: Path, shell: Shell, *, slow: bool) -> None:
    shutil.copytree(ROOT / "examples", shell.directory / "examples")
    for block in blocks(page):
        if block.title:
            shell.write(block)
        if not block.run or (block.slow and not slow):
            continue
        for command in commands(block):
            printed = shell.run(command)
            wrong = difference(command.output, printed)
            assert wrong is None, (
                f"{page.relative_to(ROOT)}:{command.line}: `{command.text}` does not print\n    {wrong}\n"
                f"it prints\n{printed}"
            )


@pytest.mark.parametrize(
    ("expected", "actual", "line"),
    [
        (("a  b",), "a b\n", None),
        (("a", "…", "d"), "a\nb\nc\nd\n", None),
        (("spam 90.0", "…"), "spam 87.5\nmore\n", None),
        (("spam 90.0",), "spam 60.0\n", "spam 90.0"),
        (("6 models",), "7 models\n", "6 models"),
        (("a",), "a\nb\n", "(nothing more, but there is: b)"),
        (("sha256 …)",), "sha256 12ab…)\n", None),
        (("x █████▌···· 50.0 %",), "x ██▌······· 52.5 %\n", None),
    ],
)
def test_outputs_are_compared_by_their_stable_parts(expected, actual, line):
    assert difference(expected, actual) == line
