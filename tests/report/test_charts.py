"""Pictures show the numbers they are given."""

from __future__ import annotations

import doctest
from xml.etree import ElementTree

import pytest

from fusionbench_core.report import curve, matrix
from fusionbench_core.report.charts import Bar, dot_chart, grouped_bars, heat_map, line_chart, radar, svg
from fusionbench_core.report.charts.lines import thin
from fusionbench_core.report.details import read_curve, read_matrix

NAMES = ["clip-vit-base-patch32_" + "long" * 8 + str(i) for i in range(10)]


def parse(picture: str) -> ElementTree.Element:
    """The picture without the prefix of its name space."""
    return ElementTree.fromstring(picture.replace('xmlns="http://www.w3.org/2000/svg"', ""))


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(svg).failed == 0


def test_bars_are_as_long_as_their_values():
    bars = [("a", [Bar(0.25), Bar(1.0)]), ("b", [Bar(0.5, (0.4, 0.6)), Bar(None)])]
    root = parse(grouped_bars(bars, ["pretrained", "fused"], label="x"))
    drawn = [float(rect.get("width", 0)) for rect in root.iter("rect") if rect.get("rx") == "1.5"]
    assert len(drawn) == 3
    assert drawn[0] / drawn[1] == pytest.approx(0.25, rel=1e-3)
    assert drawn[2] / drawn[1] == pytest.approx(0.5, rel=1e-3)


def test_whiskers_span_the_interval():
    root = parse(grouped_bars([("a", [Bar(0.5, (0.4, 0.6))])], ["fused"], label="x"))
    bar = next(rect for rect in root.iter("rect") if rect.get("rx") == "1.5")
    span = root.find("path[@class='whisker']").get("d")
    low, high = float(span[1:].split()[0]), float(span.partition("H")[2])
    unit = float(bar.get("width")) / 0.5
    assert (high - low) / unit == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("count", [4, 7, 10])
def test_names_never_leave_the_picture(count):
    rings = {"fused": [1.2] * count, "individual": [1.0] * count}
    for picture in (
        grouped_bars([(name, [Bar(1.0, (0.9, 1.0))]) for name in NAMES[:count]], ["fused"], label="x"),
        radar(NAMES[:count], rings, label="x"),
        dot_chart([(name, 1.0, [("t", 1.0)]) for name in NAMES[:count]], best=[], grey=[], label="x"),
    ):
        root = parse(picture)
        width = float(root.get("width"))
        for text in root.iter("text"):
            wide = svg.width_of(text.text, float(text.get("font-size")))
            shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor")]
            left = float(text.get("x")) - shift * wide
            assert left >= -1
            assert left + wide <= width + 1


def test_shortened_names_are_whole_in_the_tooltip():
    root = parse(grouped_bars([(NAMES[0], [Bar(0.5)])], ["fused"], label="x"))
    assert NAMES[0] in [title.text for title in root.iter("title")]


def test_a_gap_in_a_curve_interrupts_its_line():
    found = read_curve("loss", curve({"a": [3.0, 2.0, float("nan"), 1.0, 0.5]}))
    root = parse(line_chart(found))
    assert len([path for path in root.iter("path") if path.get("class") == "line-0"]) == 2


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [None], [1e-9, 3e9]])
def test_odd_curves_are_drawn(values):
    found = read_curve("loss", {"kind": "curve", "series": {"a": values}})
    parse(line_chart(found))


def test_long_curves_are_averaged_not_cut():
    points = thin([(float(i), float(i % 2)) for i in range(1000)], most=100)
    assert len(points) == 100
    assert {y for _, y in points} == {0.5}
    assert sum(x for x, _ in points) / 100 == pytest.approx(499.5)


def test_the_map_has_one_cell_a_value_and_names_it():
    found = read_matrix("m", matrix([[0.0, -1.0], [1.0, None]], rows=["r1", "r2"], columns=["c1", "c2"]))
    root = parse(heat_map(found))
    tips = [title.text for rect in root.iter("rect") for title in rect.iter("title")]
    assert tips == ["r1, c1: 0", "r1, c2: -1", "r2, c1: 1", "r2, c2: missing"]


def test_long_matrices_grow_sideways():
    tall = matrix([[float(i)] for i in range(200)], rows=[f"layer.{i}" for i in range(200)], columns=["m"])
    root = parse(heat_map(read_matrix("m", tall)))
    assert float(root.get("height")) < float(root.get("width"))


def test_one_value_makes_a_map():
    parse(heat_map(read_matrix("m", matrix([[0.3]], rows=["a"], columns=["b"]))))
