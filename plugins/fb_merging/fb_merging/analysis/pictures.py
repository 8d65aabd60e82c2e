"""An analysis as a report: heat maps and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusionbench_core import Report, curve, matrix


def as_report(name: str, found: Mapping[str, Any]) -> Report:
    """A report whose details are the pictures of what `task_vectors.describe` gives."""
    models, conflict = found["models"], found["sign_conflict"]
    layers = [index for index in conflict["layers"] if index != "outside"]
    depth = [int(index) for index in layers]
    details: dict[str, Any] = {
        "cosine": matrix(
            _pairs(found["cosine"]),
            rows=models,
            columns=models,
            title="Cosine similarity of the task vectors",
        ),
        "sign conflict": matrix(
            _pairs(conflict["pairs"]),
            rows=models,
            columns=models,
            title="Fraction of the entries that both models change, in opposite directions (half by chance)",
        ),
        "magnitudes": curve(
            {model: found["sizes"][model] for model in models},
            x=found["sizes"]["log10"],
            title="How large the entries of the task vectors are",
            x_label="log10 of the magnitude",
            y_label="fraction of the entries in a tenth of a decade",
        ),
    }
    if layers:
        details["sign conflict by layer"] = curve(
            {"all models": [conflict["layers"][index] for index in layers]},
            x=depth,
            title="Fraction of the shared entries with a conflict of signs",
            x_label="layer",
            y_label="fraction",
        )
        details["norm by layer"] = curve(
            {model: [found["layer_norm"][index][model] for index in layers] for model in models},
            x=depth,
            title="Norm of the task vectors",
            x_label="layer",
            y_label="norm",
        )
    numbers = {f"kinship {measure}": value for measure, value in found["kinship"].items()}
    return Report(tasks={}, name=name, details={**details, **numbers, "entries": found["entries"]})


def _pairs(values: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Without the diagonal, which says nothing and would take up the scale."""
    return [[None if i == j else value for j, value in enumerate(row)] for i, row in enumerate(values)]
