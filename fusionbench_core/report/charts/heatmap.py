"""Heat maps of small and of long matrices, e.g. learned coefficients: model by layer."""

from __future__ import annotations

from fusionbench_core.report.charts.svg import add, canvas, distinct, shorten, text_of, width_of, write
from fusionbench_core.report.details import Matrix

WIDTH = 530.0
SEQUENTIAL = ("#f2f6fa", "#c6dbef", "#8fbfe0", "#4a98cf", "#1668ab", "#08306b")
DIVERGING = ("#8a4100", "#d98b2b", "#f5d3a0", "#f6f6f6", "#a9cfe8", "#3b8bc4", "#0b3c78")
TURN = 24
"""More rows than this, and than columns, are laid out as columns, for pages scroll only downwards."""


def heat_map(matrix: Matrix) -> str:
    """Cells from light to dark blue; orange to blue around zero where signs differ."""
    if len(matrix.rows) > TURN and len(matrix.rows) > len(matrix.columns):
        matrix = _turned(matrix)
    known = [value for row in matrix.values for value in row if value is not None] or [0.0]
    low, high = min(known), max(known)
    rows, columns = distinct(matrix.rows), distinct(matrix.columns)
    if low < 0 < high:
        high = max(-low, high)
        low, shades = -high, DIVERGING
    else:
        shades = SEQUENTIAL
    left = min(150.0, 14 + max(width_of(name, 11) for name in rows))
    longest = max(width_of(name, 11) for name in columns)
    wide = min(64.0, (WIDTH - left - 6) / len(matrix.columns))
    tall = 22.0 if len(matrix.rows) <= TURN else max(6.0, 530 / len(matrix.rows))
    flat = longest <= wide - 4
    slanted = min(84.0, longest * 0.71)  # height, and reach to the right, of names at 45 degrees
    names = 18.0 if flat else 10 + slanted
    if not flat:
        wide = min(wide, (WIDTH - left - slanted) / len(matrix.columns))
    top = 34 + names
    bottom = top + tall * len(matrix.rows)
    root = canvas(WIDTH, bottom + 8 + (18 if matrix.column_label else 0), _label(matrix))
    _scale(root, low, high, shades)
    write(root, left - 8, top - 7, matrix.row_label, style="muted", anchor="end", size=11, room=left - 10)
    step = max(1, int(-(-18 // wide))) if not flat else 1
    for index, name in enumerate(columns):
        if index % step == 0:
            _column_name(root, left + (index + 0.5) * wide, top - 6, name, flat, names)
    rows_step = max(1, int(-(-11 // tall)))
    for row, (name, values) in enumerate(zip(rows, matrix.values)):
        y = top + row * tall
        if row % rows_step == 0:
            write(root, left - 8, y + tall / 2 + 4, name, anchor="end", size=11, room=left - 10)
        for column, value in enumerate(values):
            shown = "missing" if value is None else f"{value:.4g}"
            tip = f"{matrix.rows[row]}, {matrix.columns[column]}: {shown}"
            _cell(root, left + column * wide, y, wide, tall, value, _shade(value, low, high, shades), tip)
    if matrix.column_label:
        middle = left + wide * len(matrix.columns) / 2
        write(root, middle, bottom + 18, matrix.column_label, style="muted", anchor="middle", size=11)
    return text_of(root)


def _cell(root, x, y, wide, tall, value, fill, tip) -> None:
    gap = 1.0 if min(wide, tall) > 8 else 0.0
    shape = {"width": wide - gap, "height": tall - gap, "shape_rendering": "crispEdges"}
    cell = add(root, "rect", "" if fill else "track", x=x, y=y, **shape)
    if fill:
        cell.set("fill", fill)
    add(cell, "title").text = tip
    if value is not None and wide >= 34 and tall >= 16:
        ink = "#ffffff" if _dark(fill) else "#1f2328"
        number = add(
            root, "text", "", x=x + wide / 2, y=y + tall / 2 + 3.5, text_anchor="middle", font_size=10.5
        )
        number.set("fill", ink)
        number.set("pointer-events", "none")
        number.text = _short(value)


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
    return "0.00" if text == "-0.00" else text


def _column_name(root, x: float, y: float, name: str, flat: bool, room: float) -> None:
    if flat:
        write(root, x, y, name, anchor="middle", size=11)
    else:
        turn = f"rotate(-45 {x + 3:.2f} {y:.2f})"
        write(root, x + 3, y, shorten(name, (room - 10) / 0.71 + 1, 11), size=11, transform=turn)


def _scale(root, low: float, high: float, shades: tuple[str, ...]) -> None:
    cells, right = 24, WIDTH - 50.0
    for index in range(cells):
        x, value = right - 5.0 * (cells - index), low + (high - low) * index / (cells - 1)
        add(root, "rect", x=x, y=7, width=5.3, height=10, fill=_shade(value, low, high, shades))
    write(root, right - 5.0 * cells - 6, 16, f"{low:.3g}", style="muted", anchor="end", size=11)
    write(root, right + 6, 16, f"{high:.3g}", style="muted", size=11)


def _shade(value: float | None, low: float, high: float, shades: tuple[str, ...]) -> str:
    if value is None:
        return ""
    at = (value - low) / (high - low) * (len(shades) - 1) if high > low else (len(shades) - 1) / 2
    index = min(int(at), len(shades) - 2)
    pairs = zip(_channels(shades[index]), _channels(shades[index + 1]))
    return "#" + "".join(f"{round(a + (b - a) * (at - index)):02x}" for a, b in pairs)


def _dark(colour: str) -> bool:
    red, green, blue = _channels(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _turned(matrix: Matrix) -> Matrix:
    values = [list(column) for column in zip(*matrix.values)]
    return Matrix(matrix.title, matrix.columns, matrix.rows, values, matrix.column_label, matrix.row_label)


def _label(matrix: Matrix) -> str:
    return f"{matrix.title}: {len(matrix.rows)} rows, {len(matrix.columns)} columns"
