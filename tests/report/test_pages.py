"""Markdown and HTML: complete, escaped, self-contained."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from fusionbench_core.report import Report, curve, matrix
from fusionbench_core.report.html import to_html
from fusionbench_core.report.markdown import escape, to_markdown

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "wbr", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def svgs(page: str) -> list[ElementTree.Element]:
    """The pictures of a page, parsed as XML."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_page_shows_results_and_everything_needed_to_run_again(report):
    text = "\n".join(Page(to_html(report)).text)
    for shown in (
        "82.5",
        "+35.0",
        "60.0",
        "hub/cars",
        "density",
        "fb run method=ties_merging",
        "9f9f9f",
    ):
        assert shown in text
    for shown in (
        "Yadav et al.",
        "one thing",
        "fb-merging",
        "MIT",
        "torch 2.5.1",
        "Loss curve",
        "temperature",
    ):
        assert shown in text


def test_the_markdown_shows_the_same(report):
    text = to_markdown(report)
    assert "| cars | 30.0 | 80.0 | 60.0 | +30.0 | 75.0 | 50.0 – 70.0 | 50 |" in text
    assert "| average | 40.0 | 90.0 | 75.0 | +35.0 | 82.5 |" in text
    assert "**Warning:** one thing" in text


def test_further_baselines_have_columns_of_their_own(make):
    joint = {"cars": {"accuracy": 0.7}, "mnist": {"accuracy": 0.95}}
    report = make(baselines={**make().baselines, "multi_task": joint})
    text = to_markdown(report)
    assert r"| task | pretrained | individual | multi\_task | fused |" in text
    assert "| cars | 30.0 | 80.0 | 70.0 | 60.0 |" in text
    assert "| average | 40.0 | 90.0 | 82.5 | 75.0 |" in text
    page = to_html(report)
    assert "multi_<wbr>task" in page
    assert '<td class="n">82.5</td>' in page


def test_text_from_outside_is_never_markup(make):
    task = {"accuracy": 0.5, EVIL: 0.5, "intervals": {"accuracy": [0.4, 0.6]}}
    hostile = make(
        tasks={EVIL: task, "b": task, "c": task},
        name=EVIL,
        method={"name": EVIL, "summary": EVIL, "formula": EVIL, "parameters": {EVIL: EVIL}, "paper": EVIL},
        modelpool={"base": {"reference": EVIL}, "models": {EVIL: {"reference": EVIL, "fingerprint": EVIL}}},
        taskpool={"cards": {EVIL: {"source": EVIL, "licence": EVIL}}},
        baselines={"individual": {name: {"accuracy": 0.5} for name in (EVIL, "b", "c")}},
        command=["fb", EVIL],
        warnings=[EVIL],
        plugins=[{"namespace": EVIL}],
        adaptation_data={EVIL: EVIL},
        details={
            EVIL: EVIL,
            "c": curve({EVIL: [1.0, 2.0]}, title=EVIL, x_label=EVIL, y_label=EVIL),
            "m": matrix([[1.0]], rows=[EVIL], columns=[EVIL], title=EVIL, row_label=EVIL),
        },
    )
    page = to_html(hostile)
    assert "<script" not in page
    assert {tag for tag, _ in Page(page).tags}.isdisjoint({"script", "img", "iframe", "link", "object"})
    fenced = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", to_markdown(hostile))
    assert "<script" not in fenced


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://plain", "data:text/html,x"])
def test_papers_link_by_https_only(make, url):
    page = Page(to_html(make(method={"name": "m", "paper": {"title": "T", "url": url}})))
    assert not any(tag == "a" for tag, _ in page.tags)


def test_nothing_is_loaded_from_elsewhere(report):
    page = to_html(report)
    links = [attributes for tag, attributes in Page(page).tags if tag == "a"]
    assert [link["href"] for link in links] == ["https://arxiv.org/abs/2306.01708"]
    loading = {"src", "srcset", "background", "data", "poster", "xlink:href", "action"}
    assert not any(loading & set(attributes) for _, attributes in Page(page).tags)
    assert not any("href" in attributes for tag, attributes in Page(page).tags if tag != "a")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_pictures_are_well_formed_and_say_what_they_show(make):
    tasks = {f"task {i} & <{i}>\x00": {"accuracy": i / 10} for i in range(10)}
    pictures = svgs(to_html(make(tasks=tasks, baselines={})))
    assert len(pictures) == 4
    assert all(picture.get("role") == "img" and picture.get("aria-label") for picture in pictures)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
def test_any_number_of_tasks_makes_a_page(count):
    page = to_html(Report(tasks={f"t{i}": {"accuracy": 0.5} for i in range(count)}))
    assert len(svgs(page)) == (0 if count == 0 else 1 if count < 3 else 2)
    Page(page)


def test_adapting_to_test_data_is_said_on_top(make):
    page = to_html(make(transductive=True))
    assert "adapted to test data" in page.partition("<h2>")[0]
    assert "adapted to test data" not in to_html(make())


@pytest.mark.parametrize(
    "broken", [{"kind": "curve"}, {"kind": "matrix", "values": [[1]], "rows": [], "columns": 3}]
)
def test_a_malformed_detail_is_listed_instead_of_drawn(make, broken):
    page = Page(to_html(make(details={"odd": broken})))
    assert "odd" in page.text


def test_same_report_same_page(make):
    assert to_html(make()) == to_html(make())
    assert to_markdown(make()) == to_markdown(make())


def test_cells_of_a_table_stay_one_cell():
    assert escape("a|b\nc") == r"a\|b c"


def test_the_page_says_which_experts_were_not_measured(make):
    assert "measured in this run, except for cars: recorded before" in to_html(make())
    individual = {name: {"accuracy": 0.9, "recorded": True} for name in ("cars", "mnist")}
    assert "recorded before, not measured in this run" in to_markdown(
        make(baselines={"individual": individual})
    )
