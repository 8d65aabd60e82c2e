"""Compare our merging methods with the same methods of other tools, entry by entry.

    python benchmarks/parity.py [MERGEKIT | FUSION_BENCH]

Small models with all kinds of tensors are merged by each tool, in an environment of its own, and by ours,
with parameters that ask for the same. Prints a table and writes `docs/assets/parity.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from parity import fusion_bench_cases, mergekit_cases
from parity.case import SETTINGS, Case
from parity.exchange import run_peer
from parity.models import make_models
from parity.outcome import outcome
from peers import PEERS

SEED = 0
TARGET = Path(__file__).resolve().parent.parent / "docs/assets/parity.json"
SCRIPTS = Path(__file__).resolve().parent / "parity"

CASES: dict[str, tuple[Case, ...]] = {
    "mergekit": mergekit_cases.CASES,
    "fusion_bench": fusion_bench_cases.CASES,
}


def main() -> None:
    """Run all peers, or those that are named, and write what was found."""
    torch.set_num_threads(1)
    models = {dtype: make_models(SEED, getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    report = json.loads(TARGET.read_text()) if sys.argv[1:] else {"peers": {}}
    for peer in PEERS:
        name, version = peer.name.split()
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        cases = CASES[name]
        results = run_peer(peer.install(), SCRIPTS / f"in_{name}.py", _jobs(cases), models)
        found = [
            outcome(case, {key[1]: draws for key, draws in results.items() if key[0] == number}, models)
            for number, case in enumerate(cases)
        ]
        report["peers"][name] = {"version": version, "comparisons": found}
        print(f"{peer.name}\n" + "\n".join(map(_line, found)) + "\n")
    report |= {
        "seed": SEED,
        "tensors": {name: list(x.shape) for name, x in models["float32"]["base"].items()},
        "not_compared": fusion_bench_cases.NOT_COMPARED,
    }
    TARGET.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _jobs(cases: tuple[Case, ...]) -> list[dict[str, Any]]:
    return [
        {
            "id": (number, setting.name),
            "method": case.theirs,
            "parameters": dict(case.their_parameters),
            "models": [model for model in case.models if model != case.their_base],
            "base": case.their_base,
            "without": list(case.without),
            "dtype": setting.dtype,
            "arithmetic": setting.arithmetic,
            "draws": case.draws,
        }
        for number, case in enumerate(cases)
        for setting in (SETTINGS[:1] if case.draws else SETTINGS)
    ]


def _line(found: dict[str, Any]) -> str:
    cells = [f"{found['theirs'][:38]:38}", f"{found['ours']:24}"]
    cells += [f"{setting} {_text(each['difference'])}" for setting, each in found["largest"].items()]
    cells += [f"{len(found['on_purpose'])} on purpose"] if found["on_purpose"] else []
    cells += [f"UNEXPLAINED {found['unexplained']}"] if found["unexplained"] else []
    return "  ".join(cells) if found["largest"] else f"{cells[0]}  cannot be run"


def _text(difference: float | None) -> str:
    return "NaN" if difference is None else f"{difference:.0e}"


if __name__ == "__main__":
    main()
