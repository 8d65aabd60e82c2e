"""A plugin in one file: models of wide linear layers on disk, large enough that memory tells, and a task."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

import fusionbench_core as fb
from fusionbench_core import hookimpl, implements

SOURCE = fb.SourceRecord(name="wide", target="wide:WideSource", summary="wide linear layers")
TASK = fb.TaskRecord(
    name="noise",
    target="wide:Noise",
    summary="random inputs and labels",
    provides=("evaluate", "batches", "labels", "logits", "loss"),
    metrics=("accuracy", "loss"),
)
SPLITS = ("train", "validation", "test")
SAMPLES, CLASSES = 16, 3


@hookimpl
def fb_model_sources():
    return [SOURCE]


@hookimpl
def fb_tasks():
    return [TASK]


class Wide(nn.Module):
    """Linear layers, each as wide as the other; or as many mixtures of experts, as Mixtral's are laid out."""

    def __init__(self, width: int, depth: int, experts: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Mixture(width, experts) if experts else nn.Linear(width, width, bias=False) for _ in range(depth)
        )

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class Mixture(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = Gate(width, experts)
        self.experts = Experts(width, experts)

    def forward(self, x):
        _, gates, chosen = self.gate(x)
        return self.experts(x, chosen, gates)


class Gate(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.top_k = 2
        self.weight = nn.Parameter(torch.zeros(experts, width))

    def forward(self, x):
        logits = F.linear(x, self.weight)
        best, chosen = logits.softmax(-1).topk(self.top_k, dim=-1)
        return logits, best, chosen


class Experts(nn.Module):
    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.act_fn = nn.SiLU()
        self.gate_up_proj = nn.Parameter(torch.zeros(experts, width // 2, width))
        self.down_proj = nn.Parameter(torch.zeros(experts, width, width // 4))

    def forward(self, x, chosen, gates):
        out = torch.zeros_like(x)
        for expert, (first, second) in enumerate(zip(self.gate_up_proj, self.down_proj)):
            gate, up = F.linear(x, first).chunk(2, dim=-1)
            share = (gates * (chosen == expert)).sum(-1, keepdim=True)
            out += share * F.linear(self.act_fn(gate) * up, second)
        return out


@implements(SOURCE)
class WideSource(fb.ModelSource):
    @classmethod
    def recognises(cls, path):
        return (Path(path) / "wide.json").is_file()

    def open(self):
        return fb.open_checkpoint(self.path)

    def skeleton(self):
        return Wide(*json.loads((Path(self.path) / "wide.json").read_text())).eval()

    def assets(self):
        return [Path(self.path) / "wide.json"]


def make_models(directory: Path, count: int, *shape: int) -> dict[str, str]:
    """A base and models in fp32, as the source reads them; name -> path.

    Args:
        directory: Where they are written.
        count: How many there are beside the base.
        shape: Width, depth and, for mixtures, the number of experts.
    """
    paths = {}
    for seed, name in enumerate(["base", *"abcdefgh"[:count]]):
        generator = torch.Generator().manual_seed(seed)
        path = directory / name
        path.mkdir(parents=True)
        (path / "wide.json").write_text(json.dumps(shape))
        empty = Wide(*shape).state_dict()
        state = {
            key: torch.randn(tensor.shape, generator=generator) / shape[0] for key, tensor in empty.items()
        }
        fb.write_safetensors(path / "model.safetensors", state)
        paths[name] = str(path)
    return paths


@implements(TASK)
class Noise(fb.ClassificationTask):
    width: int = Field(default=8, gt=0, description="entries of an input")

    def card(self):
        splits = dict.fromkeys(SPLITS, SAMPLES)
        return fb.TaskCard(title="Noise", version=1, source="drawn here", licence="CC0", splits=splits)

    def attach(self, trunk):
        return Attached(trunk)

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        generator = torch.Generator().manual_seed(SPLITS.index(split))
        x, labels = torch.randn(SAMPLES, self.width, generator=generator), torch.arange(SAMPLES) % CLASSES
        for rows in torch.arange(min(SAMPLES, limit or SAMPLES)).split(batch_size):
            yield fb.Batch({"x": x[rows]}, labels[rows] if labelled else None, rows)

    def fingerprint(self):
        return self.model_dump_json()


class Attached(nn.Module):
    """The first few entries of what the trunk gives, as logits."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, x):
        return self.trunk(x)[:, :CLASSES]
