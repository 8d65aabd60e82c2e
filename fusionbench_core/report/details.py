"""Curves and matrices that a method reports about itself, e.g. losses and learned coefficients.

`Report.details` holds any JSON values; most are listed as they are. Two shapes are drawn:

- a **curve**: `{"kind": "curve", "series": {name: [y, …]}}`, and optionally `"x": [x, …]` (else
  0, 1, 2, …), `"title"`, `"x_label"`, `"y_label"`;
- a **matrix**: `{"kind": "matrix", "values": [[…], …], "rows": [name, …], "columns": [name, …]}`, and
  optionally `"title"`, `"row_label"`, `"column_label"`.

None stands for a value that is missing or was not finite. :func:`curve` and :func:`matrix` make them:

    details = {
        "loss": curve({"mnist": losses}, title="Adaptation loss", x_label="step", y_label="entropy (nats)"),
        "coefficients": matrix(weights, rows=layers, columns=models, title="Learned coefficients"),
        "temperature": 0.1,
    }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusionbench_core.report.averages import number
from fusionbench_core.report.plain import plain


def curve(
    series: Mapping[str, Sequence[float | None]],
    *,
    x: Sequence[float] | None = None,
    title: str = "",
    x_label: str = "step",
    y_label: str = "",
) -> dict[str, Any]:
    """Lines over a common x axis.

    Args:
        series: Name of a line -> its values, None where one is missing.
        x: Where the values are; default 0, 1, 2, …
        title: What the picture shows.
        x_label: Of the x axis.
        y_label: Of the y axis, with its unit.

    Raises:
        ValueError: if `x` is shorter than a line.
    """
    made = {"kind": "curve", "title": title, "x_label": x_label, "y_label": y_label}
    made = plain({**made, "x": x, "series": series})
    if read_curve("", made) is None:
        raise ValueError("a curve is made of lists of numbers, none longer than x")
    return made


def matrix(
    values: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    row_label: str = "",
    column_label: str = "",
) -> dict[str, Any]:
    """A table of numbers, drawn as a heat map.

    Args:
        values: `(rows, columns)`: nested lists, an array or a tensor.
        rows: Names of the rows.
        columns: Names of the columns.
        title: What the picture shows.
        row_label: What the rows are.
        column_label: What the columns are.

    Raises:
        ValueError: if the names do not fit the values.
    """
    made = {"kind": "matrix", "title": title, "row_label": row_label, "column_label": column_label}
    made = plain({**made, "rows": list(rows), "columns": list(columns), "values": values})
    if read_matrix("", made) is None:
        raise ValueError(f"the values are not {len(rows)} rows of {len(columns)} numbers")
    return made


@dataclass(frozen=True)
class Curve:
    """A curve as it is drawn; `points` of each series are (x, y or None)."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float | None]]]


@dataclass(frozen=True)
class Matrix:
    """A matrix as it is drawn."""

    title: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    row_label: str
    column_label: str


def read_curve(name: str, value: Any) -> Curve | None:
    """The curve that a detail describes; None if it describes none, or is malformed."""
    if (
        not isinstance(value, Mapping)
        or value.get("kind") != "curve"
        or not isinstance(value.get("series"), Mapping)
    ):
        return None
    x, lines = value.get("x"), value["series"]
    if not lines or not all(_numbers(line) for line in lines.values()):
        return None
    longest = max(len(line) for line in lines.values())
    places = list(range(longest)) if x is None else x
    if not _numbers(places) or None in places or len(places) < longest:
        return None
    title = str(value.get("title") or name)
    series = {str(key): [(float(x), y) for x, y in zip(places, line)] for key, line in lines.items()}
    return Curve(title, str(value.get("x_label") or ""), str(value.get("y_label") or ""), series)


def read_matrix(name: str, value: Any) -> Matrix | None:
    """The matrix that a detail describes; None if it describes none, or is malformed."""
    if not isinstance(value, Mapping) or value.get("kind") != "matrix":
        return None
    values, rows, columns = (value.get(key) for key in ("values", "rows", "columns"))
    if not (isinstance(values, list) and isinstance(rows, list) and isinstance(columns, list)):
        return None
    if not rows or not columns or len(values) != len(rows):
        return None
    if not all(_numbers(row) and len(row) == len(columns) for row in values):
        return None
    return Matrix(
        title=str(value.get("title") or name),
        rows=[str(row) for row in rows],
        columns=[str(column) for column in columns],
        values=values,
        row_label=str(value.get("row_label") or ""),
        column_label=str(value.get("column_label") or ""),
    )


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(value is None or number(value) for value in values)
