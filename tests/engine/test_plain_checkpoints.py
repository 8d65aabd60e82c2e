"""What a method made of another architecture is a plain checkpoint, if the pool's source can read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fusionbench_core import (
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    ModelSource,
    PooledModel,
    implements,
    open_checkpoint,
    write_safetensors,
)
from fusionbench_core.artefact.load import load_artefact
from fusionbench_core.artefact.manifest import read_manifest
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.records import MethodRecord, SourceRecord
from fusionbench_core.registry import Registry

STACK = SourceRecord(name="stack", target="here:Stack", summary="linear layers, as many as config.json says")
DOUBLE = MethodRecord(name="double", target="here:Double", summary="twice as many layers")


@implements(STACK)
class Stack(ModelSource):
    def open(self):
        return open_checkpoint(self.path)

    def skeleton(self):
        layers = json.loads(self.assets()[0].read_text())["layers"]
        return nn.Sequential(*(nn.utils.skip_init(nn.Linear, 2, 2, bias=False) for _ in range(layers)))

    def assets(self):
        return [Path(self.path) / "config.json"]


@implements(DOUBLE)
class Double(ModelMethod):
    def fuse(self, job):
        module = job.pool.module()
        twice = nn.Sequential(*module.children(), *job.pool.module().children())
        return Fused.of_checkpoint(twice, assets={"config.json": '{"layers": 2}'})


@pytest.fixture
def write(tmp_path):
    """`write(**options)`: twice the base, as an artefact written with these engine options."""
    directory = tmp_path / "base"
    directory.mkdir()
    (directory / "config.json").write_text('{"layers": 1}')
    write_safetensors(directory / "model.safetensors", {"0.weight": torch.tensor([[1.0, 2], [3, 4]])})
    pool = ModelPool({}, PooledModel("base", source=Stack(path=str(directory))))

    def write(**options) -> Path:
        out = tmp_path / "out"
        writer = ArtefactWriter(out, Double(), DOUBLE, pool, options=EngineOptions(**options))
        writer.fused(Double().fuse(FusionJob(pool=pool)))
        writer.publish()
        return out

    return write


@pytest.fixture
def written(write) -> Path:
    return write()


def test_the_source_reads_it_with_its_new_config(written):
    source = Stack(path=str(written))
    module = source.build(source.open())
    assert torch.equal(module(torch.tensor([1.0, 0.0])), torch.tensor([7.0, 15.0]))


def test_it_has_the_dtype_that_the_engine_is_told(write):
    written = write(dtype=torch.bfloat16)
    checkpoint = open_checkpoint(written)
    assert {checkpoint.info(name).dtype for name in checkpoint} == {torch.bfloat16}
    assert json.loads((written / "config.json").read_text())["dtype"] == "bfloat16"


def test_it_needs_no_builder(written):
    manifest = read_manifest(written)
    assert (manifest.kind, manifest.builder) == ("weights", None)

    class OneSource(Registry):
        def load(self, kind, name):
            assert (kind, name) == ("source", "stack")
            return Stack

    assert len(list(load_artefact(written, OneSource([])).children())) == 2
