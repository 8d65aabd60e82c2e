"""An analysis as a report: heat maps and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fusionbench_core import Report, curve, matrix


def as_report(name: str, found: Mapping[str, Any]) -> Report:
    """A report whose details are the pictures of what `task_vectors.describe` gives."""
    models, conflict = found["models"], found["sign_conflict"]
    layers = [index for index in conflict["layers"] if index != "outside"]
    depth = [int(index) for index in layers]
    details: dict[str, Any] = {
        "cosine": matrix(
            found["cosine"], rows=models, columns=models, title="Cosine similarity of the task vectors"
        ),
        "sign conflict": matrix(
            conflict["pairs"],
            rows=models,
            columns=models,
            title="Fraction of the entries that both models change, in opposite directions",
        ),
        "magnitudes": curve(
            {model: [_log(value) for value in found["magnitude"][model]] for model in models},
            x=found["magnitude"]["quantiles"],
            title="Magnitudes of the task vectors",
            x_label="fraction of the entries",
            y_label="log10 of the magnitude",
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


def _log(value: float) -> float | None:
    return math.log10(value) if value > 0 else None
