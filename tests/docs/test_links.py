"""Links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pages import DOCS, ROOT, pages

_LINK = re.compile(r"(?<!`)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^ *(`{3,}).*?^ *\1", re.MULTILINE | re.DOTALL)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_every_link_to_a_file_finds_it(page):
    missing = []
    for target in _links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            missing.append(target)
    assert not missing


def test_every_page_can_be_reached_from_the_menu():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(_leaves(yaml.safe_load(text)["nav"]))
    present = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    present = {page for page in present if not page.startswith("_generate/")}
    assert listed <= present
    assert {page for page in present - listed if not page.startswith("reference/methods/")} == set()


def test_nothing_is_fetched_from_elsewhere():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert "extra_javascript" not in config
    assert "analytics" not in config.get("extra", {})


def _links(page: Path) -> list[str]:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def _anchors(page: Path) -> set[str]:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    given = {name for title in titles for name in re.findall(r"\{#([\w-]+)\}$", title)}
    return given | {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def _leaves(node) -> list[str]:
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    return [leaf for child in children for leaf in _leaves(child)]
