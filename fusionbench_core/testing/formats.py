"""A check report as JSON, JUnit XML, GitHub annotations, or a badge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

from fusionbench_core.testing.report import CheckReport
from fusionbench_core.testing.result import FAILING, Result


def as_json(report: CheckReport) -> str:
    """Schema `fusionbench-check/1`."""
    return json.dumps(report.to_json(), indent=2, ensure_ascii=False)


def as_junit(report: CheckReport) -> str:
    """JUnit XML: one test suite a record, one test case a check; warnings go to its output."""
    suites = ElementTree.Element("testsuites", name=f"fb plugin check {report.plugin}")
    for subject in dict.fromkeys(result.subject for result in report.results):
        of_it = [result for result in report.results if result.subject == subject]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=subject,
            tests=str(len(of_it)),
            failures=str(sum(result.failing and result.status != "error" for result in of_it)),
            errors=str(sum(result.failing and result.status == "error" for result in of_it)),
            skipped=str(sum(result.status in ("skipped", "xfailed") for result in of_it)),
            time=f"{sum(result.seconds for result in of_it):.3f}",
        )
        for result in of_it:
            suite.append(_test_case(result))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def as_github(report: CheckReport) -> str:
    """Workflow commands: errors and warnings that GitHub shows on a pull request, and a last line."""
    return "\n".join([*_annotations(report), summary(report)])


def as_badge(report: CheckReport) -> str:
    """An endpoint badge in the schema of shields.io."""
    passed = sum(result.required and result.status == "passed" for result in report.results)
    badge = {
        "schemaVersion": 1,
        "label": "FusionBench",
        "message": f"conformant, {passed} checks" if report.conformant else "not conformant",
        "color": "brightgreen" if report.conformant else "red",
    }
    return json.dumps(badge)


def summary(report: CheckReport) -> str:
    """The outcome in one line."""
    failing = sum(result.failing for result in report.results)
    warnings = sum(result.status in FAILING and not result.required for result in report.results)
    counts = ", ".join(
        f"{count} {word}"
        for count, word in (
            (report.count("passed"), "passed"),
            (failing, "failed"),
            (warnings, "warnings" if warnings != 1 else "warning"),
            (report.count("xfailed"), "failed as expected"),
            (report.count("skipped"), "not applicable"),
        )
        if count
    )
    verdict = "conformant" if report.conformant else "NOT conformant"
    return f"{report.plugin} is {verdict} at level {report.level}: {counts} ({report.seconds:.1f} s)"


FORMATS: dict[str, Callable[[CheckReport], str]] = {"json": as_json, "junit": as_junit, "github": as_github}
"""Name -> what writes it."""


def _test_case(result: Result) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname=result.subject,
        name=f"{result.check} {result.title}",
        time=f"{result.seconds:.3f}",
    )
    if result.status in ("skipped", "xfailed"):
        ElementTree.SubElement(case, "skipped", message=_clean(result.message))
    elif result.failing:
        kind = "error" if result.status == "error" else "failure"
        ElementTree.SubElement(case, kind, message=_clean(result.message)).text = _clean(_details(result))
    elif result.status in FAILING or result.suggestion:
        text = _details(result) if result.status in FAILING else result.suggestion
        ElementTree.SubElement(case, "system-out").text = _clean(text)
    return case


def _details(result: Result) -> str:
    facts = [
        ("", result.message),
        ("measured  ", result.measured),
        ("bound     ", result.bound),
        ("reproduce ", result.reproduce),
        ("fix       ", result.fix),
        ("more      ", result.page),
    ]
    return "\n".join(f"{label}{value}" for label, value in facts if value)


def _annotations(report: CheckReport) -> Iterator[str]:
    for result in report.results:
        if result.status in FAILING:
            level = "error" if result.failing else "warning"
            title = f"{result.check} {result.subject}: {result.title}"
            yield f"::{level} title={_property(title)}::{_data(_details(result))}"
        elif result.suggestion:
            title = _property(f"{result.check} {result.subject}")
            yield f"::notice title={title}::{_data(result.suggestion)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c in "\t\n" or ord(c) >= 32 else "?" for c in text)
