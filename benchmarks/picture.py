"""Horizontal bars on a logarithmic axis, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP = 640, 190, 60, 16, 6
_COLOURS = ("#999999", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7")


def bars(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, label: str) -> str:
    """One block of bars a group; values of at least 1, the axis from 1 to the next power of ten.

    Args:
        groups: (title, [(name, value), …]).
        label: What the picture shows.
    """
    top = max((value for _, rows in groups for _, value in rows), default=1.0)
    decades = max(1.0, log10(max(top, 1.0)))
    names = dict.fromkeys(name for _, rows in groups for name, _ in rows)
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    parts, y = [f'<text x="8" y="18" font-weight="bold">{escape(label)}</text>'], 40
    for title, rows in groups:
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 8
        for name, value in rows:
            length = (_WIDTH - _LEFT - _RIGHT) * log10(max(value, 1.0)) / decades + 2
            middle = y + _BAR - 4
            parts.append(f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>')
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" '
                f'fill="{colours[name]}"/>'
            )
            parts.append(f'<text x="{_LEFT + length + 6:.1f}" y="{middle}">{value:.3g}</text>')
            y += _BAR + _GAP
        y += 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(label)}" font-family="sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(parts)}</svg>\n"
    )
