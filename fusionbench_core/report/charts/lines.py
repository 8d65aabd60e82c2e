"""Lines over a common axis, for losses and other curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from fusionbench_core.report.charts.svg import (
    DASHES,
    LINES,
    add,
    canvas,
    legend,
    text_of,
    ticks,
    width_of,
    write,
)
from fusionbench_core.report.details import Curve

WIDTH, HEIGHT, TOP = 530.0, 240.0, 26.0
MOST = 240
"""Points drawn a line; more are averaged in equal buckets."""


def line_chart(curve: Curve) -> str:
    """One line a series; where a value is missing, the line is interrupted."""
    lines = {name: thin(points) for name, points in curve.series.items()}
    xs = [x for points in lines.values() for x, _ in points] or [0.0]
    ys = [y for points in lines.values() for _, y in points if y is not None] or [0.0]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    left = 20 + max(width_of(f"{tick:g}", 11) for tick in y_ticks)
    plot, right = WIDTH - left - 16, x_ticks[-1]
    bottom = TOP + HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (right - x_ticks[0])
        return (left + across * plot, bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * HEIGHT)

    entries = [(name, _mark(index)) for index, name in enumerate(lines)]
    probe = legend(canvas(1, 1, ""), entries, left, 0, plot)
    root = canvas(WIDTH, bottom + 48 + probe, f"{curve.title}: {curve.y_label} over {curve.x_label}")
    write(root, 4, 14, curve.y_label, style="muted", size=11, room=WIDTH - 8)
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        add(root, "line", "grid", x1=left, x2=left + plot, y1=y, y2=y)
        write(root, left - 8, y + 4, f"{tick:g}", style="muted", anchor="end", size=11)
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        add(root, "line", "axis", x1=x, x2=x, y1=bottom, y2=bottom + 4)
        write(root, x, bottom + 17, f"{tick:g}", style="muted", anchor="middle", size=11)
    add(root, "line", "axis", x1=left, x2=left + plot, y1=bottom, y2=bottom)
    write(root, left + plot / 2, bottom + 33, curve.x_label, style="muted", anchor="middle", size=11)
    for index, points in enumerate(lines.values()):
        for run in _runs(points):
            _draw(root, [place(x, y) for x, y in run], index)
    legend(root, entries, left, bottom + 54, plot)
    return text_of(root)


def thin(points: Sequence[tuple[float, float | None]], most: int = MOST) -> list[tuple[float, float | None]]:
    """At most `most` points: means over equal buckets, missing values left out."""
    per = -(-len(points) // most)
    if per <= 1:
        return list(points)
    made: list[tuple[float, float | None]] = []
    for start in range(0, len(points), per):
        bucket = points[start : start + per]
        known = [y for _, y in bucket if y is not None]
        made.append((sum(x for x, _ in bucket) / len(bucket), sum(known) / len(known) if known else None))
    return made


def _runs(points: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    for known, run in groupby(points, key=lambda point: point[1] is not None):
        if known:
            yield list(run)  # type: ignore[arg-type]


def _draw(root, points: Sequence[tuple[float, float]], index: int) -> None:
    colour, dash = index % len(LINES), DASHES[index // len(LINES) % len(DASHES)]
    if len(points) == 1:
        add(root, "circle", f"dot-{colour}", cx=points[0][0], cy=points[0][1], r=2.5, fill=LINES[colour])
        return
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = {"stroke_dasharray": dash} if dash else {}
    shape = {"fill": "none", "stroke": LINES[colour], "stroke_width": 1.6, "stroke_linejoin": "round"}
    add(root, "path", f"line-{colour}", d=path, **shape, **dashes)


def _mark(index: int) -> dict[str, object]:
    colour, dashed = index % len(LINES), index // len(LINES)
    mark: dict[str, object] = {"style": f"dot-{colour}", "fill": LINES[colour]}
    return {**mark, "fill_opacity": 0.55} if dashed else mark
