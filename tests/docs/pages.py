"""Read the documentation's pages: fenced blocks, what is marked runnable, and what it should print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
_MARK = re.compile(r"<!-- run(?:: (?P<words>[a-z ]+))? -->")
_TITLE = re.compile(r'title="([^"]+)"')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BARS = re.compile(r"[█▏▎▍▌▋▊▉·|◆]{2,}")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: First word after the fence.
        title: Name of the file it shows, empty without one.
        text: What is inside, without the indentation of the fence.
        line: Its line in the page, counted from 1.
        run: Whether a comment `<!-- run -->` stands before it.
        slow: Whether that comment says `slow`.
    """

    language: str
    title: str
    text: str
    line: int
    run: bool
    slow: bool


@dataclass(frozen=True)
class Command:
    """A command of a console block and the output that the page shows."""

    line: int
    text: str
    output: tuple[str, ...]


def pages() -> list[Path]:
    """Every page that people read: the README, those of the plugins, and the documentation."""
    documentation = [page for page in DOCS.rglob("*.md") if "_generate" not in page.parts]
    return [ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md")), *sorted(documentation)]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    mark = None
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            if lines[number].strip():
                mark = _MARK.fullmatch(lines[number].strip())
            number += 1
            continue
        end = next(
            index
            for index in range(number + 1, len(lines))
            if lines[index].strip() == fence["ticks"] and lines[index].startswith(fence["indent"])
        )
        inside = [line.removeprefix(fence["indent"]) for line in lines[number + 1 : end]]
        title = _TITLE.search(fence["info"])
        yield Block(
            language=(fence["info"].split() or [""])[0],
            title=title[1] if title else "",
            text="\n".join(inside) + "\n",
            line=number + 1,
            run=mark is not None,
            slow=mark is not None and "slow" in (mark["words"] or ""),
        )
        mark = None
        number = end + 1


def commands(block: Block) -> list[Command]:
    """The commands of a console block: lines after `$ `, continued after a backslash."""
    found: list[tuple[int, list[str], list[str]]] = []
    for offset, line in enumerate(block.text.splitlines()):
        if line.startswith("$ "):
            found.append((block.line + 1 + offset, [line[2:]], []))
        elif found and found[-1][1][-1].endswith("\\") and not found[-1][2]:
            found[-1][1].append(line.removeprefix("> "))
        elif found:
            found[-1][2].append(line)
    return [Command(line, "\n".join(words), tuple(output)) for line, words, output in found]


def difference(expected: tuple[str, ...], actual: str, tolerance: float = 10.0) -> str | None:
    """The first line of `expected` that `actual` does not have; None if all is there.

    A line `…` stands for any lines, `…` inside a line for any text. Spaces, bars and blank lines do not
    count. Decimal numbers may differ by `tolerance`: accuracies on few samples depend on the processor.
    """
    wanted = [line for line in map(_plain, expected) if line]
    given = [line for line in map(_plain, actual.splitlines()) if line]
    place, skipping = 0, False
    for line in wanted:
        if line == "…":
            skipping = True
            continue
        ahead = range(place, len(given)) if skipping else range(place, min(place + 1, len(given)))
        hit = next((index for index in ahead if _fits(line, given[index], tolerance)), None)
        if hit is None:
            return line
        place, skipping = hit + 1, False
    if place < len(given) and not skipping:
        return f"(nothing more, but there is: {given[place]})"
    return None


def _plain(line: str) -> str:
    return " ".join(_BARS.sub("█", line).split())


def _fits(wanted: str, given: str, tolerance: float) -> bool:
    parts = [re.escape(part) for part in _NUMBER.split(wanted)]
    pattern = r"(\d+(?:[.,]\d+)*)".join(parts).replace(re.escape("…"), ".*?")
    found = re.fullmatch(pattern, given)
    if found is None:
        return False
    return all(_near(a, b, tolerance) for a, b in zip(_NUMBER.findall(wanted), found.groups()))


def _near(wanted: str, given: str, tolerance: float) -> bool:
    if wanted == given:
        return True
    try:
        return "." in wanted and abs(float(wanted) - float(given)) <= tolerance
    except ValueError:
        return False
