"""The documentation builds without a warning, and the site needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from pages import ROOT

pytest.importorskip("mkdocs")

# The site is built once, for all tests.
pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", directory],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_no_page_loads_anything_from_elsewhere(site):
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["']?https?:[^>]*>|<link[^>]+stylesheet[^>]+https?:[^>]*>"""
    )
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text(encoding="utf-8")) == []


def test_formulas_are_on_the_pages_and_not_their_placeholders(site):
    text = (site / "reference/methods/ties_merging/index.html").read_text(encoding="utf-8")
    assert "formulano" not in text
    assert "<math" in text or r"\hat\tau" in text


def test_templates_and_the_generator_are_not_published(site):
    assert not list(site.rglob("_generate*"))
    assert not list(site.rglob("generate*"))
