"""The JSON Schema that ships with the package says what reports are."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from fusionbench_core.report import Report

SCHEMA = json.loads(files("fusionbench_core.report").joinpath("schema_v1.json").read_text(encoding="utf-8"))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
KNOWN = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "anyOf", "required"),
    *("properties", "additionalProperties", "items", "minimum", "maximum", "minItems", "maxItems"),
}


def problems(value: Any, schema: dict, where: str = "$") -> list[str]:
    """What is wrong with `value`, by the keywords of JSON Schema that ours uses."""
    assert set(schema) <= KNOWN, f"unchecked keywords: {set(schema) - KNOWN}"
    if "$ref" in schema:
        return problems(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
    if "anyOf" in schema:
        return (
            []
            if any(not problems(value, one, where) for one in schema["anyOf"])
            else [f"{where}: none of anyOf"]
        )
    types = schema.get("type", list(TYPES))
    types = [types] if isinstance(types, str) else types
    if not any(isinstance(value, TYPES[name]) and (name == "boolean" or value is not True) for name in types):
        return [f"{where}: {value!r} is not {types}"]
    found = [f"{where}: not {schema['const']!r}"] if "const" in schema and value != schema["const"] else []
    if isinstance(value, int | float):
        found += (
            [f"{where}: {value}"]
            if not schema.get("minimum", value) <= value <= schema.get("maximum", value)
            else []
        )
    if isinstance(value, list):
        size = len(value)
        found += (
            [f"{where}: {size}"]
            if not schema.get("minItems", 0) <= size <= schema.get("maxItems", size)
            else []
        )
        found += [
            e
            for i, item in enumerate(value)
            for e in problems(item, schema.get("items", {}), f"{where}[{i}]")
        ]
    if isinstance(value, dict):
        found += [f"{where}: lacks {key}" for key in schema.get("required", ()) if key not in value]
        for key, item in value.items():
            rule = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            found += (
                [f"{where}: {key} is unknown"] if rule is False else problems(item, rule, f"{where}.{key}")
            )
    return found


def test_a_full_report_fits_the_schema(report):
    assert problems(report.to_json(), SCHEMA) == []


def test_an_empty_report_fits_the_schema():
    assert problems(Report(tasks={}).to_json(), SCHEMA) == []


def test_every_entry_of_a_report_is_in_the_schema(report):
    run = report.to_json()["fusionbench"]
    assert set(run) == set(SCHEMA["properties"]["fusionbench"]["properties"])


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("cars", "accuracy"), 60.0),
        (("cars", "interval"), [0.5]),
        (("fusionbench", "schema_version"), 2),
        (("fusionbench", "warnings"), "text"),
        (("fusionbench", "surprise"), 1),
        (("model_info", "all_params"), 1.5),
    ],
)
def test_the_schema_refuses_what_is_wrong(report, path, wrong):
    data = report.to_json()
    data[path[0]][path[1]] = wrong
    assert problems(data, SCHEMA)
