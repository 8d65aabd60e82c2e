"""Merges with fusion_bench, in its own environment: `python in_fusion_bench.py DIRECTORY`; see `exchange.py`.

Its algorithms take whole modules. A model that one of them cannot take is tried again without the buffers
that are not floating-point.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.clip import modeling_clip

# transformers 5 has no such class any more, which a few imports of fusion_bench want and nothing here uses.
if not hasattr(modeling_clip, "CLIPVisionTransformer"):
    modeling_clip.__dict__["CLIPVisionTransformer"] = modeling_clip.CLIPVisionModel

from fusion_bench import BaseModelPool

State = dict[str, Tensor]

MODULES = {
    "DOPMerging": "fusion_bench.method.dop.dop_general",
    "OPCM": "fusion_bench.method.opcm.opcm_general",
    "SingularValueCalibrationArithmeticTask": "fusion_bench.method.singular_value_calibration",
}
"""Where algorithms are that `fusion_bench.method` does not show."""


def module_of(state: State) -> nn.Module:
    """A module whose state dict is a copy of `state`, with layers of the usual classes and tied weights."""
    root, made = nn.Module(), {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            root.register_buffer(name, tensor.clone())
            continue
        layer, kind = name.split(".")
        if not hasattr(root, layer):
            root.add_module(layer, _layer(layer, tensor, f"{layer}.bias" in state))
        owner = root.get_submodule(layer)
        shared = next((other for other in made if state[other] is tensor), None)
        made[name] = made[shared] if shared else nn.Parameter(tensor.clone())
        setattr(owner, kind, made[name])
    return root


def _layer(name: str, weight: Tensor, bias: bool) -> nn.Module:
    if name == "embed":
        return nn.Embedding(weight.shape[0], weight.shape[1])
    if weight.dim() == 4:
        height, width = weight.shape[2:]
        return nn.Conv2d(weight.shape[1], weight.shape[0], (height, width), bias=False)
    return nn.Linear(weight.shape[1], weight.shape[0], bias=bias) if weight.dim() == 2 else nn.Module()


def consensus(
    pool: BaseModelPool, tall_mask_lambda: float, prune_threshold: int, scaling_factor: float
) -> nn.Module:
    """Its masks on vectors, counted and multiplied as its `construct_consensus_mask` does with files."""
    from fusion_bench.method.tall_mask.utils import generate_task_masks
    from fusion_bench.utils.parameters import state_dict_to_vector, vector_to_state_dict

    pretrained = pool.load_pretrained_model()
    start = state_dict_to_vector(pretrained.state_dict())
    models = [pool.load_model(name) for name in pool.model_names]
    tuned = torch.stack([state_dict_to_vector(model.state_dict()) for model in models])
    masks = generate_task_masks(tuned - start, tuned, start, tall_mask_lambda=tall_mask_lambda)
    kept = masks.float().sum(0) >= prune_threshold
    merged = start + scaling_factor * kept * (tuned - start).sum(0)
    pretrained.load_state_dict(vector_to_state_dict(merged, pretrained.state_dict()))
    return pretrained


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
            result = _run(job, BaseModelPool(modules)).state_dict()
        except Exception as error:
            if refused or not buffers:
                return {"state": {}, "refused": {"all": f"{type(error).__name__}: {error}"}}
            refused = dict.fromkeys(buffers, f"{type(error).__name__}: {error}")
            continue
        return {
            "state": {n: x.detach().to(out) if x.is_floating_point() else x for n, x in result.items()},
            "refused": refused,
        }


def _run(job: dict[str, Any], pool: BaseModelPool) -> nn.Module:
    if job["method"] == "TALL_masks":
        return consensus(pool, **job["parameters"])
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
