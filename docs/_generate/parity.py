"""The comparison with the methods of other tools, from what `make parity` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from _generate.text import ROOT, sentence, table
from fusionbench_core.registry import Registry

REPORT = ROOT / "docs/assets/parity.json"

_SETTINGS = ("float32", "bfloat16", "bfloat16 throughout")


def parity(registry: Registry) -> dict[str, str]:
    """Tables of the differences, and why they are there."""
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    comparisons = [each for peer in report["peers"].values() for each in peer["comparisons"]]
    known = {found.name for found in registry.all("method") if found.origin.namespace == "merging"}
    alone = sorted(known - {each["ours"] for each in comparisons} - report["not_compared"].keys())
    return {
        "tensors": ", ".join(f"`{name}` {_shape(shape)}" for name, shape in report["tensors"].items()),
        "peers": "\n\n".join(_peer(name, peer) for name, peer in report["peers"].items()),
        "not_compared": table(
            ("method", "why"),
            [(_link(name), sentence(why)) for name, why in report["not_compared"].items()],
        ),
        "alone": ", ".join(map(_link, alone)) or "none",
    }


def _peer(name: str, peer: Mapping[str, Any]) -> str:
    anchor = f"{name}-on-purpose"
    merged = [each for each in peer["comparisons"] if not each["draws"]]
    drawn = [each for each in peer["comparisons"] if each["draws"]]
    parts = [
        f"## {name} {peer['version']}",
        table(
            ("theirs", "models", "ours", *_SETTINGS),
            [(*_both(each), *(_largest(each, name, anchor) for name in _SETTINGS)) for each in merged],
        ),
    ]
    if drawn:
        parts += [
            "Random methods, by the means of many draws, in standard errors of their difference:",
            table(
                ("theirs", "models", "ours", "draws", "difference"),
                [(*_both(each), each["draws"], _largest(each, "draws", anchor)) for each in drawn],
            ),
        ]
    parts += [f"### Differences of {name} on purpose {{#{anchor}}}", _purposes(peer["comparisons"])]
    parts += [f"### What {name} refuses", _refusals(peer["comparisons"])]
    return "\n\n".join(parts)


def _purposes(comparisons: list[dict[str, Any]]) -> str:
    rows = []
    for each in comparisons:
        for purpose in each["on_purpose"]:
            places = {f"`{tensor}`" for tensors in purpose["differences"].values() for tensor in tensors}
            values = [v for tensors in purpose["differences"].values() for v in tensors.values()]
            largest = None if None in values else max(values)
            settings, tensors = ", ".join(purpose["differences"]), ", ".join(sorted(places))
            rows.append((_title(each), tensors, settings, _text(largest), sentence(purpose["why"])))
        if each["note"]:
            rows.append((_title(each), "", "", "", sentence(each["note"])))
    return table(("theirs", "tensors", "in", "largest", "why"), rows)


def _refusals(comparisons: list[dict[str, Any]]) -> str:
    """One row for each message: who says it, and of what."""
    said: dict[tuple[str, str], set[str]] = {}
    for each in comparisons:
        for setting, messages in each["refused"].items():
            for tensor, message in messages.items():
                where = "all tensors" if tensor == "all" else f"`{tensor}`"
                if setting == _SETTINGS[-1] and tensor not in each["refused"].get("float32", {}):
                    where += f" in {setting}"
                quoted = message.removesuffix(".").replace("`", "'")
                said.setdefault((where, quoted), set()).add(each["theirs"])
    rows = [
        (where, ", ".join(f"`{name}`" for name in sorted(names)), f"`{message}`")
        for (where, message), names in said.items()
    ]
    return table(("tensor", "methods", "what it says"), rows)


def _title(each: Mapping[str, Any]) -> str:
    return f"`{each['theirs']}`{_chosen(each['their_parameters'])}"


def _both(each: Mapping[str, Any]) -> tuple[str, str, str]:
    """Theirs, the models, and ours."""
    ours = f"{_link(each['ours'])}{_chosen(each['our_parameters'])}"
    return _title(each), ", ".join(each["models"]), ours


def _chosen(parameters: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={_value(value)}" for name, value in parameters.items())
    return f" ({text})" if text else ""


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(_short(value)).replace('"', "")


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _largest(each: Mapping[str, Any], setting: str, anchor: str) -> str:
    found = each["largest"].get(setting)
    apart = any(setting in purpose["differences"] for purpose in each["on_purpose"])
    if found is None:
        return "refused" if "all" in each["refused"][setting] else f"[on purpose](#{anchor})"
    text = f"{found['difference']:.1f}" if setting == "draws" else _text(found["difference"])
    return f"{text}, but for [some](#{anchor})" if apart else text


def _text(difference: float | None) -> str:
    if difference is None:
        return "NaN"
    return f"{difference:.0e}".replace("e-0", "e-") if difference else "0"


def _shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _link(name: str) -> str:
    return f"[`{name}`](methods/{name}.md)"
