"""A radar chart: one axis a task, one ring a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fusionbench_core.report.charts.svg import add, canvas, legend, text_of, write

WIDTH, RADIUS, MIDDLE_Y = 530.0, 158.0, 218.0


def radar(axes: Sequence[str], rings: Mapping[str, Sequence[float]], *, label: str) -> str:
    """Rings of values as fractions; the outermost grid ring is 100 %, values above it are drawn outside.

    Args:
        axes: Names of at least three axes, clockwise from the top.
        rings: Model -> its value on every axis; `pretrained`, `individual` and `fused` have colours.
        label: What the picture shows, for screen readers.
    """
    most = max(1.0, *(value for values in rings.values() for value in values))
    scale, centre = RADIUS / most, WIDTH / 2
    angles = [2 * math.pi * index / len(axes) - math.pi / 2 for index in range(len(axes))]
    root = canvas(WIDTH, MIDDLE_Y + RADIUS + 52, label)
    legend(root, [(name, {"style": name}) for name in rings], 12, 16, WIDTH - 24)
    for tick in (0.25, 0.5, 0.75, 1.0):
        _ring(root, "grid", [tick] * len(axes), angles, scale, fill="none")
    for angle, name in zip(angles, axes):
        x, y = _point(angle, 1.0, scale)
        add(root, "line", "grid", x1=centre, y1=MIDDLE_Y, x2=x, y2=y)
        _name(root, angle, name)
    for name, values in rings.items():
        _ring(root, f"ring-{name}", values, angles, scale)
        if name == "fused":
            for angle, value in zip(angles, values):
                x, y = _point(angle, value, scale)
                add(root, "circle", "fused", cx=x, cy=y, r=3)
    between = angles[0] + math.pi / len(axes)
    for tick in (0.5, 1.0):
        x, y = _point(between, tick * math.cos(math.pi / len(axes)), scale)
        write(root, x, y + 4, f"{100 * tick:.0f} %", style="tick", anchor="middle", size=10)
    return text_of(root)


def _ring(root, style: str, values: Sequence[float], angles: Sequence[float], scale: float, **extra) -> None:
    points = [_point(angle, max(0.0, value), scale) for angle, value in zip(angles, values)]
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    add(root, "polygon", style, points=text, stroke_linejoin="round", **extra)


def _point(angle: float, value: float, scale: float) -> tuple[float, float]:
    return (WIDTH / 2 + value * scale * math.cos(angle), MIDDLE_Y + value * scale * math.sin(angle))


def _name(root, angle: float, name: str) -> None:
    across, down = math.cos(angle), math.sin(angle)
    x, y = WIDTH / 2 + (RADIUS + 12) * across, MIDDLE_Y + (RADIUS + 14) * down
    middle = abs(across) < 0.15
    anchor = "middle" if middle else "start" if across > 0 else "end"
    room = 2 * min(x, WIDTH - x) - 8 if middle else (WIDTH - x if across > 0 else x) - 6
    write(root, x, y + 4 + 4 * down, name, anchor=anchor, room=min(room, 190))
