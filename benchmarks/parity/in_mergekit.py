"""Merges with mergekit, in its own environment: `python in_mergekit.py DIRECTORY` (see `exchange.py`).

Every tensor is merged by itself, so that one which mergekit refuses does not hide the others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods import merge_state_dicts
from mergekit.scripts.extract_lora import TaskVectorDecompositionTask

State = dict[str, torch.Tensor]


def merged(job: dict[str, Any], models: dict[str, State]) -> dict[str, Any]:
    """The merged tensors, and what was said of those that were refused."""
    state, refused = {}, {}
    work = getattr(torch, job["arithmetic"])
    for name in next(iter(models.values())):
        alone = {model: {name: tensors[name]} for model, tensors in models.items()}
        out = getattr(torch, job["dtype"]) if alone[next(iter(alone))][name].is_floating_point() else None
        try:
            if job["method"] == "extract_lora":
                result = extracted(alone, job, work, out or work)
            else:
                result = merge_state_dicts(
                    alone,
                    job["method"],
                    parameters=job["parameters"],
                    base=job["base"],
                    dtype=work if out else None,
                    out_dtype=out,
                )
            state[name] = result[name].detach().clone()
        except Exception as error:
            refused[name] = f"{type(error).__name__}: {error}"
    return {"state": state, "refused": refused}


def extracted(
    models: dict[str, State], job: dict[str, Any], work: torch.dtype, out: torch.dtype
) -> dict[str, torch.Tensor]:
    """The base plus the product of the factors that its extraction finds for a matrix."""
    base, tuned = (dict(models[model]) for model in (job["base"], *job["models"]))
    task = TaskVectorDecompositionTask.model_construct(**job["parameters"])
    found = {}
    for name, tensor in base.items():
        a, b = task.execute(tuned[name].to(work) - tensor.to(work))
        found[name] = (tensor.to(work) + b @ a).to(out)
    return found


def main(directory: Path) -> None:
    """Do all jobs."""
    stored = torch.load(directory / "models.pt")
    results = {}
    for job in json.loads((directory / "jobs.json").read_text()):
        names = [*([job["base"]] if job["base"] else []), *job["models"]]
        models = {model: dict(stored[job["dtype"]][model]) for model in dict.fromkeys(names)}
        for state in models.values():
            for name in job["without"]:
                del state[name]
        draws = []
        for seed in range(job["draws"] or 1):
            torch.manual_seed(seed)
            draws.append(merged(job, models))
        results[tuple(job["id"])] = draws
    torch.save(results, directory / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
