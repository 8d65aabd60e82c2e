"""A whole plugin in one file: a source, a task, methods and a builder, small enough to run in a second."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

import fusionbench_core as fb
from fusionbench_core import hookimpl, implements

SOURCE = fb.SourceRecord(name="mlp", target="toy:MlpSource", summary="a directory with a small MLP")
TASK = fb.TaskRecord(
    name="blobs",
    target="toy:Blobs",
    summary="gaussian blobs",
    provides=("evaluate", "batches", "labels", "logits", "loss"),
    metrics=("accuracy", "loss"),
)
MEAN = fb.MethodRecord(name="mean", target="toy:Mean", summary="the mean of all models")
ARITHMETIC = fb.MethodRecord(
    name="arithmetic",
    target="toy:Arithmetic",
    summary="base plus scaled task vectors",
    capabilities=fb.Capabilities(base="required"),
)
SLOW = fb.MethodRecord(name="slow", target="toy:Slow", summary="the mean, slowly, or not at all")
STACK = fb.MethodRecord(
    name="stack",
    target="toy:Stack",
    summary="all models behind one another, summed",
    capabilities=fb.Capabilities(output="module"),
)
GREEDY = fb.MethodRecord(
    name="greedy",
    target="toy:Greedy",
    summary="asks for test data",
    capabilities=fb.Capabilities(output="weights", tasks=("batches",)),
)
SUMMED = fb.BuilderRecord(name="summed", target="toy:build_summed", summary="a sum of models")


@hookimpl
def fb_methods():
    return [MEAN, ARITHMETIC, SLOW, STACK, GREEDY]


@hookimpl
def fb_model_sources():
    return [SOURCE]


@hookimpl
def fb_tasks():
    return [TASK]


@hookimpl
def fb_builders():
    return [SUMMED]


@implements(SOURCE)
class MlpSource(fb.ModelSource):
    @classmethod
    def recognises(cls, path):
        return (Path(path) / "mlp.json").is_file()

    def open(self):
        return fb.open_checkpoint(self.path)

    def skeleton(self):
        sizes = json.loads((Path(self.path) / "mlp.json").read_text())
        return nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:])).eval()

    def assets(self):
        return [Path(self.path) / "mlp.json"]


def make_models(directory: Path, count: int = 3, width: int = 8) -> dict[str, str]:
    """A base and models, written as the source reads them."""
    paths = {}
    for seed, name in enumerate(["base", *"abcdefgh"[:count]]):
        generator = torch.Generator().manual_seed(seed)
        path = directory / name
        path.mkdir(parents=True)
        sizes = [4, width, 3]
        (path / "mlp.json").write_text(json.dumps(sizes))
        shapes = {"0.weight": (width, 4), "0.bias": (width,), "2.weight": (3, width), "2.bias": (3,)}
        state = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        fb.write_safetensors(path / "model.safetensors", state)
        paths[name] = str(path)
    return paths


@implements(TASK)
class Blobs(fb.ClassificationTask):
    samples: int = Field(default=60, gt=0, description="samples a split")
    shift: float = Field(default=0.0, description="where the blobs are")
    fail: bool = Field(default=False, description="raise when measured")

    def card(self):
        return fb.TaskCard(
            title="Blobs",
            version=1,
            source="drawn here",
            licence="CC0",
            splits=dict.fromkeys(SPLITS, self.samples),
        )

    def attach(self, trunk):
        return Attached(trunk)

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        if self.fail:
            raise RuntimeError("this task cannot be measured")
        generator = torch.Generator().manual_seed(SPLITS.index(split))
        count = min(self.samples, limit or self.samples)
        labels = torch.arange(count) % 3
        x = torch.randn(count, 4, generator=generator) + labels[:, None] + self.shift
        order = torch.arange(count)
        if seed is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        for rows in order.split(batch_size):
            yield fb.Batch({"x": x[rows]}, labels[rows] if labelled else None, rows)

    def fingerprint(self):
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


SPLITS = ["train", "validation", "test"]


class Attached(nn.Module):
    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, x):
        return self.trunk(x)


@implements(MEAN)
class Mean(fb.TensorMethod):
    def merge(self, group):
        return sum(group.models) / len(group.models)


@implements(ARITHMETIC)
class Arithmetic(fb.TensorMethod):
    scaling_factor: float = Field(
        default=0.3, gt=0, le=2, description="multiplies the sum of the task vectors"
    )

    def merge(self, group):
        return group.base + self.scaling_factor * sum(group.deltas)


@implements(SLOW)
class Slow(fb.TensorMethod):
    pause: float = Field(default=0.0, description="seconds a group")

    def merge(self, group):
        time.sleep(self.pause)
        if group.name == os.environ.get("TOY_FAIL_AT"):
            raise RuntimeError("told to fail")
        return sum(group.models) / len(group.models)


class Summed(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return sum(part(x) for part in self.parts)


@implements(STACK)
class Stack(fb.ModelMethod):
    def fuse(self, job):
        module = Summed([job.pool.module(name) for name in job.pool.names])
        return fb.Fused.of_module(module, builder="summed", arguments={"count": len(job.pool)})


def build_summed(context):
    return Summed([context.skeleton() for _ in range(context.arguments["count"])])


@implements(GREEDY)
class Greedy(fb.ModelMethod):
    split: str = Field(default="test", description="split to adapt to")

    def fuse(self, job):
        for task in job.tasks.values():
            for _ in task.batches(self.split):
                pass
        name = job.pool.names[0]
        return fb.Fused.weights(
            {key: job.pool.checkpoint(name).tensor(key) for key in job.pool.checkpoint(name)}
        )
