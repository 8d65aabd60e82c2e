"""The reference pages are those that the code makes, and leave nothing out."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from _generate import api, commands, errors, hooks
from pages import DOCS, ROOT

REFERENCE = DOCS / "reference"


@pytest.fixture(scope="module")
def made():
    """Made in a process of its own: other tests load commands and plugins into this one."""
    code = (
        f"import json, sys; sys.path.insert(0, {str(DOCS)!r}); import generate; "
        "sys.stdout.write(json.dumps(generate.pages()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_every_generated_page_is_up_to_date(made):
    stale = [path for path, text in made.items() if not _same(path, text)]
    assert not stale, f"run `make docs` and commit what it writes: {', '.join(stale)}"


def test_no_generated_page_is_left_over(made):
    present = {path.relative_to(ROOT).as_posix() for path in REFERENCE.rglob("*.md")}
    assert present <= made.keys()


@pytest.mark.parametrize("name", [name for name, _ in hooks.specifications()])
def test_every_hook_is_described_with_its_arguments(name):
    found = dict(hooks.specifications())[name]
    page = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    shown = re.search(rf"^{name}\((.*?)\)", page, re.MULTILINE | re.DOTALL)
    assert shown
    for argument in found.__code__.co_varnames[: found.__code__.co_argcount]:
        assert re.search(rf"\b{argument}\b", shown[1])


@pytest.mark.parametrize("cls", hooks.record_types(), ids=lambda cls: cls.__name__)
def test_every_field_of_a_record_is_described(cls):
    page = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    section = page.partition(f"### {cls.__name__}\n")[2].partition("\n### ")[0]
    common = page.partition("### Record\n")[2].partition("\n### ")[0]
    for name in cls.__dataclass_fields__:
        assert f"| `{name}` |" in section or f"| `{name}` |" in common


def test_every_command_is_described():
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    found = [words for words, _ in commands.commands()]
    assert {"fb", "fb run", "fb plan", "fb plugin disable"} <= set(found)
    for words in found:
        assert f"## {words}\n" in page


def test_every_public_name_is_described():
    page = (REFERENCE / "api.md").read_text(encoding="utf-8")
    for name in api.public():
        assert f"### {name}\n" in page or f"`{name}`" in page


def test_the_readme_has_the_exit_statuses_of_the_code():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for status, meaning in errors.exit_statuses():
        assert f"| {status} | {meaning} |" in readme


def _same(path: str, text: str) -> bool:
    file = ROOT / path
    return file.is_file() and file.read_text(encoding="utf-8") == text
