"""The conformance checks, from the kit's catalogue."""

from __future__ import annotations

from _generate.text import sentence, table
from fusionbench_core.testing import Check, catalogue
from fusionbench_core.testing.check import KINDS

_TITLES = {
    "plugin": "Plugins",
    "method": "Methods",
    "source": "Model sources",
    "task": "Tasks",
}


def checks() -> dict[str, str]:
    """Counts, and one section a check."""
    found = catalogue()
    rows = [
        (
            f"[{_TITLES[kind]}](#{_TITLES[kind].lower().replace(' ', '-')})",
            f"`{letters}-…`",
            sum(check.kind == kind for check in found),
            sum(check.kind == kind and check.required for check in found),
            sum(check.kind == kind and check.level == "fast" for check in found),
        )
        for letters, kind in KINDS.items()
    ]
    parts = []
    for kind in KINDS.values():
        parts.append(f"## {_TITLES[kind]}")
        parts += [_section(check) for check in found if check.kind == kind]
    return {
        "counts": table(("what is checked", "IDs", "checks", "required", "at level `fast`"), rows),
        "checks": "\n\n".join(parts),
    }


def _section(check: Check) -> str:
    facts = ["required" if check.required else "a warning", f"level `{check.level}`", f"since {check.since}"]
    if check.requires:
        needs = ", ".join(f"[{each}](#{each.lower()})" for each in check.requires)
        facts.append(f"says nothing where {needs} failed")
    return (
        f"### {check.id}: {check.title} {{#{check.id.lower()}}}\n\n*{', '.join(facts)}*\n\n"
        f"{sentence(check.why)}\n\n**What to do.** {sentence(check.fix)}"
    )
