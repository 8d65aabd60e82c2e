"""What a method says of itself: parameters, docstring, paper."""

from __future__ import annotations

import datetime
import inspect
import re

from fusionbench_core.testing.check import Inapplicable, Violation, check, unexpected
from fusionbench_core.testing.method_subject import MethodSubject

_ARXIV = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})\Z")
_FORMULA = re.compile(r"\$[^$]+\$|\.\. math::|\\\(|\\\[")


@check("FM-105", requires=("FM-101",))
def fields_described(subject: MethodSubject) -> None:
    """It has a JSON schema, and every parameter a description.

    Descriptions are the only documentation of parameters: `fb show`, editors and the catalogue print them.

    Fix: `Field(default=…, description="…")` for every parameter, those of nested models too.
    """
    try:
        schema = subject.cls.model_json_schema()
    except Exception as error:
        raise Violation(f"it has no JSON schema: {unexpected(error)}") from error
    silent = [
        name for name, field in subject.cls.model_fields.items() if not (field.description or "").strip()
    ]
    for title, nested in schema.get("$defs", {}).items():
        silent += [
            f"{title}.{name}"
            for name, facts in nested.get("properties", {}).items()
            if not facts.get("description", "").strip() and "const" not in facts
        ]
    if silent:
        raise Violation(
            f"no description: {', '.join(silent)}",
            reproduce=f"{subject.cls.__name__}.model_json_schema()",
        )


@check("FM-110", requires=("FM-101",))
def documented(subject: MethodSubject) -> str | None:
    """Its docstring has a summary, a formula, and its source.

    The catalogue of methods and `fb show` are made of docstrings; a formula says in one line what code hides.

    Fix: one line of summary, a blank line, the formula between `$` signs, `Notes:` on what differs from the
    paper, `Reference:` with the paper.
    """
    doc = inspect.cleandoc(subject.cls.__dict__.get("__doc__") or "")
    summary, _, rest = doc.partition("\n\n")
    if not doc:
        raise Violation(f"{subject.cls.__name__} has no docstring")
    if "\n" in summary or not summary.endswith("."):
        raise Violation("its docstring does not begin with a sentence on one line", measured=summary)
    if not _FORMULA.search(doc):
        raise Violation("its docstring has no formula", bound="between $ signs, or after `.. math::`")
    if subject.record.paper is not None and not re.search(r"^References?:", rest, re.MULTILINE):
        raise Violation("its record has a paper, and its docstring no `Reference:`")
    noted = re.search(r"^Notes?:", rest, re.MULTILINE)
    return None if noted or subject.record.paper is None else "say in `Notes:` what differs from the paper"


@check("FM-111")
def paper_well_formed(subject: MethodSubject) -> str | None:
    """What it says of its paper is well formed.

    Citations, links and model cards are made of it.

    Fix: `Paper(title=…, authors="Yadav et al.", year=2023, venue="NeurIPS", arxiv="2306.01708")`, the bare
    identifier, not a URL.
    """
    paper = subject.record.paper
    if paper is None:
        if "Reference:" in (subject.cls.__doc__ or ""):
            return "its docstring has a reference: declare it as `paper` in the record, for citations"
        raise Inapplicable("it names no paper")
    for name in ("title", "authors"):
        text = getattr(paper, name)
        if not text.strip() or text != " ".join(text.split()):
            raise Violation(f"the {name} of its paper are empty or broken over lines", measured=repr(text))
    if not 1700 <= paper.year <= datetime.date.today().year + 1:
        raise Violation("the year of its paper is none", measured=paper.year)
    if paper.arxiv and not _ARXIV.match(paper.arxiv):
        raise Violation(
            "the arXiv identifier of its paper is none", measured=paper.arxiv, bound="such as 2306.01708"
        )
    cited = subject.cls.__doc__ or ""
    if paper.arxiv and "arXiv:" in cited and paper.arxiv not in cited:
        raise Violation(
            "its docstring cites another paper than its record",
            measured=re.findall(r"arXiv:\S*[\w]", cited),
            bound=paper.arxiv,
        )
    return None
