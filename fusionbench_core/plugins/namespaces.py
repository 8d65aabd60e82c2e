"""Which namespaces a distribution may claim."""

from __future__ import annotations

import re

from fusionbench_core.hookspecs import DECLARATIONS
from fusionbench_core.known import NAMESPACES
from fusionbench_core.plugins.discovery import namespace_of

FORM = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")
"""What a namespace looks like."""

_KINDS = DECLARATIONS.values()
_WORDS = "builtin core fb fusionbench fusionbench_core local plugin plugins test tests"
RESERVED = frozenset([*_WORDS.split(), *_KINDS, *(f"{kind}s" for kind in _KINDS)])
"""Words that would read as something else in a full name."""


def trouble(namespace: str, distribution: str) -> str | None:
    """Why a distribution may not claim a namespace; None if it may.

    >>> trouble("merging", "fb-merging"), trouble("task", "fb-task")
    (None, "the namespace 'task' is reserved")
    """
    expected = namespace_of(distribution)
    if namespace != expected:
        return f"the entry point is named {namespace!r}; {distribution} must name it {expected!r}"
    if not FORM.match(namespace):
        return f"the namespace {namespace!r} is not words of lower-case letters and digits, joined by one _"
    if namespace in RESERVED:
        return f"the namespace {namespace!r} is reserved"
    owner = NAMESPACES.get(namespace)
    if owner is not None and owner != distribution.lower().replace("_", "-").replace(".", "-"):
        return f"the namespace {namespace!r} belongs to {owner}"
    return None
