"""Did you mean …? Names that look like a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def fold(name: str) -> str:
    """Ignore case, and that people write dashes, dots, spaces or nothing for underscores.

    >>> fold("Ties-Merging") == fold("ties_merging") == fold("TiesMerging")
    True
    """
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == "/")


def closest(name: str, candidates: Iterable[str], *, limit: int = 3) -> list[str]:
    """The candidates most like `name`, best first; empty if none is close.

    >>> closest("ties_mergin", ["ties_merging", "slerp"])
    ['ties_merging']
    """
    import difflib

    folded: dict[str, list[str]] = {}
    for candidate in dict.fromkeys(candidates):
        folded.setdefault(fold(candidate), []).append(candidate)
    found = difflib.get_close_matches(fold(name), folded, n=limit, cutoff=0.6)
    wanted = fold(name)
    # A beginning such as `ties` is what people type from memory, but too short for a ratio of 0.6.
    if len(wanted) >= 3:
        found += [key for key in folded if key not in found and wanted in key]
    return [candidate for key in found for candidate in folded[key]][:limit]


def did_you_mean(name: str, candidates: Iterable[str], *, limit: int = 3) -> str | None:
    """`"did you mean 'ties_merging'?"`, or None if nothing is close."""
    names = closest(name, candidates, limit=limit)
    if not names:
        return None
    quoted = [repr(candidate) for candidate in names]
    head = ", ".join(quoted[:-1])
    return f"did you mean {head + ' or ' if head else ''}{quoted[-1]}?"
