"""The keys of a report, from its JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from _generate.text import ROOT, table

SCHEMA = ROOT / "fusionbench_core/report/schema_v1.json"


def report() -> dict[str, str]:
    """What the schema says about the whole, and a table of all keys."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    rows = [
        (f"`{path}`", kind, "yes" if required else "", text)
        for path, kind, required, text in _walk(schema, schema)
    ]
    return {
        "description": schema["description"],
        "keys": table(("key", "type", "required", "what"), rows),
    }


def _walk(
    node: dict[str, Any], root: dict[str, Any], path: str = "", depth: int = 0
) -> Iterator[tuple[str, str, bool, str]]:
    node = _followed(node, root)
    required = set(node.get("required", ()))
    children = list(node.get("properties", {}).items())
    extra = node.get("additionalProperties")
    if isinstance(extra, dict) and depth < 6:
        children.append((_placeholder(path), extra))
    for name, child in children:
        inner = _followed(child, root)
        here = f"{path}.{name}" if path else name
        text = inner.get("description") or child.get("description") or ""
        if "enum" in inner:
            text = f"{text} One of {', '.join(map(str, inner['enum']))}.".strip()
        yield here, _kind(inner, root), name in required, text
        if depth < 6:
            yield from _walk(inner, root, here, depth + 1)


def _placeholder(path: str) -> str:
    if not path or path.endswith(("pretrained", "individual", "cards", "adaptation_data")):
        return "TASK"
    return "MODEL" if path.endswith("models") else "KEY"


def _followed(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = {**found, **{key: value for key, value in node.items() if key != "$ref"}}
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        inner = _followed(choice, root)
        if "properties" in inner or "additionalProperties" in inner:
            return {**node, **inner, "type": ["object", "null"]}
    return node


def _kind(node: dict[str, Any], root: dict[str, Any]) -> str:
    kind = node.get("type", "any")
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if node.get("items") and "array" in kinds and isinstance(node["items"], dict):
        kinds[kinds.index("array")] = f"array of {_kind(_followed(node['items'], root), root)}"
    return " or ".join(kinds)
