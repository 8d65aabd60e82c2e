"""What the JSON says of one case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from parity.case import SETTINGS, STANDARD_ERRORS, Case
from parity.compare import differences, merged, standard_errors
from parity.exchange import Draws
from parity.models import Model

Found = dict[str, dict[str, float]]
"""Setting -> tensor -> difference."""


def outcome(
    case: Case, results: Mapping[str, Draws], models: Mapping[str, Mapping[str, Model]]
) -> dict[str, Any]:
    """The largest difference of each setting, those on purpose, and those without a reason.

    Args:
        case: What was compared.
        results: Setting -> what the peer made of it.
        models: dtype -> model -> tensors.
    """
    found = _draws(case, results, models) if case.draws else _differences(case, results, models)
    purposes, unexplained = _judged(case, found)
    rest = {
        setting: _without(tensors, _apart(setting, [*purposes.values(), unexplained]))
        for setting, tensors in found.items()
    }
    return {
        "theirs": case.theirs,
        "ours": case.ours,
        "their_parameters": dict(case.their_parameters),
        "our_parameters": dict(case.our_parameters),
        "models": list(dict.fromkeys([*([case.their_base] if case.their_base else []), *case.models])),
        "without": list(case.without),
        "note": case.note,
        "draws": case.draws,
        "bounds": _bounds(case),
        "largest": {setting: _largest(tensors) for setting, tensors in rest.items() if tensors},
        "on_purpose": [{"why": why, "differences": _rounded(each)} for why, each in purposes.items()],
        "unexplained": _rounded(unexplained),
        "refused": {setting: _said(draws[0]["refused"]) for setting, draws in results.items()},
    }


def _judged(case: Case, found: Found) -> tuple[dict[str, Found], Found]:
    """Reason -> differences, and those without one.

    Where the peer computes in bfloat16, that is reason enough.
    """
    purposes: dict[str, Found] = {}
    unexplained: Found = {}
    for setting, tensors in found.items():
        for tensor, value in tensors.items():
            # NaN is beyond any bound.
            if setting == SETTINGS[-1].name or value <= _bounds(case)[setting]:
                continue
            reason = next((why.reason for why in case.why if (tensor, setting) in why), None)
            place = unexplained if reason is None else purposes.setdefault(reason, {})
            place.setdefault(setting, {})[tensor] = value
    return purposes, unexplained


def _apart(setting: str, judged: Sequence[Found]) -> set[str]:
    """The tensors that have lines of their own in a setting; where the peer computes in bfloat16, in any."""
    return {
        tensor
        for found in judged
        for place, tensors in found.items()
        if setting in (place, SETTINGS[-1].name)
        for tensor in tensors
    }


def _bounds(case: Case) -> dict[str, float]:
    return {"draws": STANDARD_ERRORS} if case.draws else dict(case.bounds)


def _differences(
    case: Case, results: Mapping[str, Draws], models: Mapping[str, Mapping[str, Model]]
) -> Found:
    ours = {dtype: merged(case, each) for dtype, each in models.items()}
    return {
        setting.name: differences(
            ours[setting.dtype], results[setting.name][0]["state"], models[setting.dtype]["base"]
        )
        for setting in SETTINGS
    }


def _draws(case: Case, results: Mapping[str, Draws], models: Mapping[str, Mapping[str, Model]]) -> Found:
    ours = [merged(case, models["float32"], seed) for seed in range(case.draws)]
    theirs = [draw["state"] for draw in results["float32"]]
    return {"draws": standard_errors(ours, theirs)}


def _said(refused: Mapping[str, str]) -> dict[str, str]:
    """The first sentence of each message."""
    return {tensor: message.splitlines()[0].partition(". ")[0] for tensor, message in refused.items()}


def _without(tensors: Mapping[str, float], apart: set[str]) -> dict[str, float]:
    return {tensor: value for tensor, value in tensors.items() if tensor not in apart}


def _largest(tensors: Mapping[str, float]) -> dict[str, Any]:
    # What is not finite counts as largest.
    tensor = max(tensors, key=lambda name: math.inf if math.isnan(tensors[name]) else tensors[name])
    return {"difference": _number(tensors[tensor]), "tensor": tensor}


def _rounded(found: Found) -> dict[str, dict[str, float | None]]:
    return {
        setting: {tensor: _number(value) for tensor, value in tensors.items()}
        for setting, tensors in found.items()
    }


def _number(value: float) -> float | None:
    """Two digits; None for NaN, which JSON has not."""
    return None if math.isnan(value) else float(f"{value:.1e}")
