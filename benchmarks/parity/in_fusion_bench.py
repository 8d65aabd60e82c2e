"""Merges with fusion_bench, in its own environment: `python in_fusion_bench.py DIRECTORY`; see `exchange.py`.

Its algorithms take whole modules. A model that one of them cannot take is tried again without the buffers
that are not floating-point.
"""

from __future__ import annotations

import copy
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from modules import module_of
from torch import Tensor, nn
from transformers.models.clip import modeling_clip

# transformers 5 has no such class any more, which a few imports of fusion_bench want and nothing here uses.
if not hasattr(modeling_clip, "CLIPVisionTransformer"):
    modeling_clip.__dict__["CLIPVisionTransformer"] = modeling_clip.CLIPVisionModel

from fusion_bench import BaseModelPool
from fusion_bench_parts import PARTS

State = dict[str, Tensor]


class Pool(BaseModelPool):
    """Gives a copy each time, as one that reads files does: algorithms write to what they load."""

    def load_model(self, *args: Any, **kwargs: Any) -> nn.Module:
        return copy.deepcopy(super().load_model(*args, **kwargs))


MODULES = {
    "DOPMerging": "fusion_bench.method.dop.dop_general",
    "OPCM": "fusion_bench.method.opcm.opcm_general",
    "SingularValueCalibrationArithmeticTask": "fusion_bench.method.singular_value_calibration",
    "SingularValueCalibrationWithBaseMethod": "fusion_bench.method.singular_value_calibration",
}
"""Where algorithms are that `fusion_bench.method` does not show."""


def merged(job: dict[str, Any], models: dict[str, State]) -> dict[str, Any]:
    """The merged tensors, and what was said of those that were refused."""
    work, out = getattr(torch, job["arithmetic"]), getattr(torch, job["dtype"])
    buffers = [name for name, x in next(iter(models.values())).items() if not x.is_floating_point()]
    refused: dict[str, str] = {}
    while True:
        modules = {
            "_pretrained_" if model == job["base"] else model: module_of(
                {name: tensor for name, tensor in state.items() if name not in refused}
            ).to(work)
            for model, state in models.items()
        }
        try:
            result = _state(_run(job, Pool(modules)))
        except Exception as error:
            if refused or not buffers:
                return {"state": {}, "refused": {"all": f"{type(error).__name__}: {error}"}}
            refused = dict.fromkeys(buffers, f"{type(error).__name__}: {error}")
            continue
        return {
            "state": {n: x.detach().to(out) if x.is_floating_point() else x for n, x in result.items()},
            "refused": refused,
        }


def _state(result: nn.Module | dict[str, nn.Module]) -> State:
    """The tensors of a module; those of several, one for each task, are stacked."""
    if isinstance(result, nn.Module):
        return result.state_dict()
    states = [module.state_dict() for module in result.values()]
    if len(states) == 1:
        return states[0]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _run(job: dict[str, Any], pool: Pool) -> nn.Module | dict[str, nn.Module]:
    if job["method"] in PARTS:
        return PARTS[job["method"]](pool, **job["parameters"])
    module = import_module(MODULES.get(job["method"], "fusion_bench.method"))
    return getattr(module, job["method"])(**job["parameters"]).run(pool)


def main(directory: Path) -> None:
    """Do all jobs."""
    stored = torch.load(directory / "models.pt")
    results = {}
    for job in json.loads((directory / "jobs.json").read_text()):
        names = [*([job["base"]] if job["base"] else []), *job["models"]]
        models = {
            model: {name: x for name, x in stored[job["dtype"]][model].items() if name not in job["without"]}
            for model in dict.fromkeys(names)
        }
        draws = []
        for seed in range(job["draws"] or 1):
            torch.manual_seed(seed)
            draws.append(merged(job, models))
        results[tuple(job["id"])] = draws
    torch.save(results, directory / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
