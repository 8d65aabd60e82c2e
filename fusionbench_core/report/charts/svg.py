"""Building blocks of the charts: elements, text that fits, axes, legends."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

Element = ElementTree.Element

STYLES = {
    "text": {"fill": "#1f2328"},
    "muted": {"fill": "#59636e"},
    "tick": {"fill": "#59636e", "stroke": "#ffffff", "stroke-width": "3", "paint-order": "stroke"},
    "grid": {"stroke": "#d9dee3", "stroke-width": "1"},
    "axis": {"stroke": "#8b949e", "stroke-width": "1"},
    "whisker": {"stroke": "#1f2328", "stroke-width": "1.2"},
    "pretrained": {"fill": "#9aa4af"},
    "individual": {"fill": "#e69f00"},
    "fused": {"fill": "#0072b2"},
    "ring-pretrained": {
        "fill": "#9aa4af",
        "fill-opacity": "0.18",
        "stroke": "#9aa4af",
        "stroke-width": "1.8",
    },
    "ring-individual": {
        "fill": "none",
        "stroke": "#e69f00",
        "stroke-width": "1.8",
        "stroke-dasharray": "5 3",
    },
    "ring-fused": {"fill": "#0072b2", "fill-opacity": "0.16", "stroke": "#0072b2", "stroke-width": "2.2"},
    "method": {"fill": "#0072b2", "fill-opacity": "0.42"},
    "track": {"fill": "#eef1f4"},
    "dot": {"fill": "#d55e00", "stroke": "#ffffff", "stroke-width": "1"},
}
"""Class -> presentation attributes, for a picture that stands alone."""

LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7a1f", "#7f7f7f")
"""Colours of lines; the style sheet gives class `line-0` and so on their shades in dark mode."""

DASHES = ("", "6 3", "2 3")

_NARROW = frozenset("iljtfrI.,:;'|-() ")

_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def canvas(width: float, height: float, label: str) -> Element:
    """An empty picture; `label` is what a screen reader says."""
    size = {
        "viewBox": f"0 0 {_number(width)} {_number(height)}",
        "width": _number(width),
        "height": _number(height),
    }
    root = Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img", "aria-label": clean(label)}
    )
    root.set("font-family", "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif")
    return root


def add(parent: Element, tag: str, style: str = "", **attributes: object) -> Element:
    """A new element in `parent`, with the class `style`; `_` in attribute names stands for `-`."""
    given = {key.replace("_", "-"): _number(value) for key, value in attributes.items()}
    classes = {"class": style} if style else {}
    return ElementTree.SubElement(parent, tag, {**classes, **STYLES.get(style, {}), **given})


def write(
    parent: Element,
    x: float,
    y: float,
    content: str,
    *,
    style: str = "text",
    anchor: str = "start",
    size: float = 12,
    room: float = math.inf,
    bold: bool = False,
    **attributes: object,
) -> Element:
    """A line of text whose baseline starts at (x, y), shortened to `room`; the whole stays as a tooltip."""
    content = clean(content)
    shown = shorten(content, room, size)
    if bold:
        attributes["font_weight"] = 650
    element = add(parent, "text", style, x=x, y=y, font_size=size, text_anchor=anchor, **attributes)
    element.text = shown
    if shown != content:
        add(element, "title").text = content
    return element


def width_of(content: str, size: float = 12) -> float:
    """About how wide a text is, in the widest of the usual sans-serif fonts."""
    widths = (0.95 if letter in "mwMWQ@%…" else 0.4 if letter in _NARROW else 0.64 for letter in content)
    return sum(widths) * size


def distinct(names: Sequence[str]) -> list[str]:
    """Dotted names without the components that all of them begin or end with.

    >>> distinct(["model.layers.0.weight", "model.layers.1.weight"])
    ['0', '1']
    """
    parts = [name.split(".") for name in names]
    spare = min(map(len, parts), default=1) - 1
    if len(set(names)) < 2:
        return list(names)
    head = next((at for at in range(spare) if len({part[at] for part in parts}) > 1), spare)
    tail = next(
        (at for at in range(spare - head) if len({part[-1 - at] for part in parts}) > 1), spare - head
    )
    return [".".join(part[head : len(part) - tail]) for part in parts]


def shorten(content: str, room: float, size: float = 12) -> str:
    """The text if it fits; else its beginning and end, for names often differ only there.

    >>> shorten("clip-vit-base-patch32_stanford-cars", 120)
    'clip-vit-…ord-cars'
    """
    if width_of(content, size) <= room:
        return content
    for keep in range(len(content) - 1, 1, -1):
        shown = f"{content[: (keep + 1) // 2]}…{content[len(content) - keep // 2 :]}"
        if width_of(shown, size) <= room:
            return shown
    return "…"


def legend(
    parent: Element, entries: Sequence[tuple[str, dict[str, object]]], x: float, y: float, room: float
) -> float:
    """Marks and names in lines from (x, y) downwards; returns the height used.

    Args:
        parent: The picture.
        entries: (name, `style` and other attributes of its mark, a rectangle).
        x: Left edge.
        y: Baseline of the first line.
        room: Width; names that do not fit go to the next line.
    """
    left, line = x, 0
    for name, mark in entries:
        shown = shorten(clean(name), min(room - 22, 190), 12)
        wide = 18 + width_of(shown, 12) + 16
        if left > x and left + wide - 16 > x + room:
            left, line = x, line + 1
        attributes = {"width": 12, "height": 10, "rx": 2, "y": y + 18 * line - 9, **mark}
        add(parent, "rect", x=left, **attributes)  # type: ignore[arg-type]
        write(parent, left + 18, y + 18 * line, name, room=min(room - 22, 190))
        left += wide
    return 18.0 * (line + 1)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span [low, high]: multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(0.03, 0.97)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(unit * power for unit in (1, 2, 5, 10) if span / (unit * power) <= count + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(f"{step * index:.12g}") for index in range(first, last + 1)]


def clean(content: str) -> str:
    """Text without the characters that XML cannot hold, on one line."""
    return " ".join(_CONTROL.sub("", str(content)).split())


def text_of(root: Element) -> str:
    """The picture as XML."""
    return ElementTree.tostring(root, encoding="unicode")


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(str(value))
