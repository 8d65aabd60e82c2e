"""Methods beside each other: a bar for the mean, a dot for each task."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fusionbench_core.report.charts.svg import add, canvas, text_of, width_of, write

WIDTH, ROW = 860.0, 34.0


def dot_chart(
    rows: Sequence[tuple[str, float, Sequence[tuple[str, float]]]],
    *,
    best: Collection[str],
    grey: Collection[str],
    label: str,
) -> str:
    """One line a method, from 0 % to 100 % or to the largest value.

    Args:
        rows: (name, mean, (task, value) pairs), values as fractions.
        best: Names of the rows to emphasise.
        grey: Names of the rows that are there to compare with.
        label: What the picture shows, for screen readers.
    """
    left = min(240.0, 18 + max(width_of(name, 13) for name, *_ in rows))
    plot, top = WIDTH - left - 72, 34.0
    most = max(1.0, *(value for _, mean, dots in rows for value in (mean, *(found for _, found in dots))))
    scale = plot / most
    bottom = top + ROW * len(rows)
    root = canvas(WIDTH, bottom + 24, label)
    add(root, "rect", "fused", x=left, y=5, width=12, height=10, rx=2)
    write(root, left + 18, 14, "mean over tasks")
    add(root, "circle", "dot", cx=left + 136, cy=10, r=4)
    write(root, left + 146, 14, "one task")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * scale
        add(root, "line", "grid" if tick else "axis", x1=x, x2=x, y1=top - 8, y2=bottom)
        write(root, x, bottom + 16, f"{100 * tick:.0f} %", style="muted", anchor="middle", size=11)
    for index, (name, mean, dots) in enumerate(rows):
        y = top + ROW * index
        write(root, left - 10, y + 17, name, anchor="end", size=13, room=left - 14, bold=name in best)
        style = "pretrained" if name in grey else "fused" if name in best else "method"
        add(root, "rect", style, x=left, y=y + 3, width=max(0.5, mean * scale), height=20, rx=2)
        for task, value in dots:
            dot = add(root, "circle", "dot", cx=left + value * scale, cy=y + 13, r=4)
            add(dot, "title").text = f"{task}: {100 * value:.1f} %"
        write(root, left + plot + 10, y + 17, f"{100 * mean:.1f} %", size=13, bold=name in best)
    return text_of(root)
