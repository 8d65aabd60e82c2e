"""MkDocs hook: formulas become MathML, so that the site needs no script and no network.

Without the package `latex2mathml` a formula is shown as its TeX source.
"""

from __future__ import annotations

import html
import re
from typing import Any

try:
    from latex2mathml.converter import convert
except ImportError:
    convert = None

_CODE = re.compile(r"(^ *(`{3,})[^\n]*\n.*?^ *\2`*\s*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_MATH = re.compile(r"\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\w$])", re.DOTALL)
_PLACE = "formulano{}x"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take the formulas out, before Markdown sees their underscores."""
    page.meta["formulas"] = formulas = []

    def place(found: re.Match[str]) -> str:
        formulas.append(_render(found))
        text = _PLACE.format(len(formulas) - 1)
        return text if found["block"] is None else f"\n\n{text}\n\n"

    parts = _CODE.split(markdown)
    # Groups of the pattern alternate: text, code, ticks of its fence.
    return "".join(
        _MATH.sub(place, part) if index % 3 == 0 else part if index % 3 == 1 and part else ""
        for index, part in enumerate(parts)
        if part is not None
    )


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Put them back."""
    for number, formula in enumerate(page.meta.get("formulas", ())):
        html = html.replace(_PLACE.format(number), formula)
    return html


def _render(found: re.Match[str]) -> str:
    block = found["block"] is not None
    tex = " ".join((found["block"] or found["inline"]).split())
    if convert is not None:
        return convert(tex, display="block" if block else "inline")
    return f"<code>{html.escape(tex)}</code>"
