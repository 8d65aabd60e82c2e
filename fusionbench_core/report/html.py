"""A report as one self-contained HTML file: no network, no script."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fusionbench_core.report import cards, view
from fusionbench_core.report.figures import detail_figures, result_figures
from fusionbench_core.report.report import Report


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of this package; everything that they print is escaped."""
    made = Environment(
        loader=PackageLoader("fusionbench_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        breakable=breakable,
        percent=view.percent,
        points=view.points,
        bounds=view.bounds,
        spread=view.spread,
        duration=view.duration,
    )
    return made


def breakable(name: str) -> Markup:
    """A name that may be broken after its dashes, dots and underscores."""
    return Markup("<wbr>").join(re.findall(r"[^-_./]*[-_./]*", name))


def to_html(report: Report) -> str:
    """The whole report."""
    details, drawn = detail_figures(report)
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=view.headline(report),
            rows=view.rows_of(report),
            mean=view.mean_row(report),
            has={kind: bool(report.baselines.get(kind)) for kind in ("pretrained", "individual")},
            others=view.other_baselines(report),
            figures=result_figures(report),
            detail_figures=details,
            facts=_facts(report, drawn),
        )
    )


def _facts(report: Report, drawn: set[str]) -> dict[str, Any]:
    paper, url = cards.paper_of(report.method.get("paper"))
    names, metrics = cards.other_metrics(report)
    return {
        "run": cards.run_card(report),
        "method": [fact for fact in cards.method_card(report) if fact[0] != "paper"],
        "paper": paper,
        "paper_url": url,
        "formula": report.method.get("formula") or "",
        "parameters": cards.parameters(report),
        "models": cards.models(report),
        "data": cards.data(report),
        "data_columns": cards.DATA_COLUMNS,
        "adaptation": cards.adaptation(report),
        "metric_names": names,
        "metrics": metrics,
        "details": cards.plain_details(report, drawn),
        "expert_note": cards.expert_note(report),
    }
