"""Horizontal grouped bars: one group a task, so that long names stay legible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusionbench_core.report.charts.svg import add, canvas, legend, text_of, width_of, write

WIDTH, GAP, GROUP = 530.0, 2.0, 13.0
THIN, THICK, TALL = 12.0, 20.0, 340.0


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] and its 95 % interval; None where unknown."""

    value: float | None
    interval: tuple[float, float] | None = None


def grouped_bars(groups: Sequence[tuple[str, Sequence[Bar]]], series: Sequence[str], *, label: str) -> str:
    """Bars from 0 to 100 %, whiskers for the intervals, the value at the end of each.

    Args:
        groups: (task, one bar a series).
        series: Names of the series: `pretrained`, `individual`, `fused`, whose colours the style
            sheet knows.
        label: What the picture shows, for screen readers.
    """
    left = min(170.0, 16 + max(width_of(name) for name, _ in groups))
    plot = WIDTH - left - 46
    thick = min(THICK, max(THIN, (TALL / len(groups) - GROUP) / len(series) - GAP))
    tall = len(series) * (thick + GAP) - GAP
    top = 34.0
    bottom = top + len(groups) * (tall + GROUP) - GROUP + 8
    root = canvas(WIDTH, bottom + 22, label)
    legend(root, [(name, {"style": name}) for name in series], left, 14, plot)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * plot
        add(root, "line", "grid" if tick else "axis", x1=x, x2=x, y1=top - 6, y2=bottom)
        write(root, x, bottom + 15, f"{100 * tick:.0f} %", style="muted", anchor="middle", size=11)
    for index, (name, bars) in enumerate(groups):
        y = top + index * (tall + GROUP)
        write(root, left - 10, y + tall / 2 + 4, name, anchor="end", room=left - 14)
        for place, (bar, style) in enumerate(zip(bars, series)):
            if bar.value is not None:
                _draw(root, bar, style, left, y + place * (thick + GAP), plot, thick)
    return text_of(root)


def _draw(root, bar: Bar, style: str, left: float, y: float, plot: float, thick: float) -> None:
    value = min(1.0, max(0.0, bar.value or 0.0))
    add(root, "rect", style, x=left, y=y, width=max(value * plot, 0.5), height=thick, rx=1.5)
    end = value
    if bar.interval is not None:
        low, high = (min(1.0, max(0.0, bound)) for bound in bar.interval)
        end, middle = max(value, high), y + thick / 2
        x1, x2 = left + low * plot, left + high * plot
        add(root, "path", "whisker", d=f"M{x1:.2f} {middle:.2f}H{x2:.2f}", fill="none")
        for x in (x1, x2):
            add(root, "path", "whisker", d=f"M{x:.2f} {y + 3:.2f}V{y + thick - 3:.2f}", fill="none")
    shade = "text" if style == "fused" else "muted"
    write(
        root,
        left + end * plot + 6,
        y + thick / 2 + 4,
        f"{100 * (bar.value or 0):.1f}",
        style=shade,
        size=11,
        bold=style == "fused",
    )
