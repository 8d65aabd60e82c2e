"""A file that somebody writes to while it is read is noticed before what was cut off is touched."""

from __future__ import annotations

import os

import pytest
import torch

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements
from fusionbench_core.checkpoints import SafetensorsCheckpoint, safetensors_file
from fusionbench_core.checkpoints.writer import write_safetensors
from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.errors import InputError
from fusionbench_core.pools import ModelPool, PooledModel

STATE = {name: torch.arange(5000.0) for name in "abcd"}


@pytest.fixture(autouse=True)
def looked_after_at_every_read(monkeypatch):
    monkeypatch.setattr(safetensors_file, "_PERIOD", 0.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, STATE)
    return path


def test_a_file_cut_short_while_it_is_read_is_named(file):
    checkpoint = SafetensorsCheckpoint([file])
    assert torch.equal(checkpoint.tensor("a"), STATE["a"])
    os.truncate(file, 3000)
    with pytest.raises(InputError, match="changed while it was being read") as caught:
        checkpoint.tensor("d")
    assert caught.value.where["file"] == str(file)


def test_a_file_written_to_while_it_is_read_is_named(file):
    checkpoint = SafetensorsCheckpoint([file])
    with open(file, "r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\0\0\0\0")
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    with pytest.raises(InputError, match="changed"):
        checkpoint.chunk("a", 0, 10)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_was_removed_or_replaced_is_read_on_as_it_was(file, how):
    checkpoint = SafetensorsCheckpoint([file])
    if how == "replaced":
        write_safetensors(file, {name: -value for name, value in STATE.items()})
    else:
        file.unlink()
    assert torch.equal(checkpoint.tensor("d"), STATE["d"])


def test_a_file_that_changed_between_its_header_and_its_mapping_is_named(file, monkeypatch):
    read = safetensors_file.read_header

    def read_then_grow(path):
        header = read(path)
        with open(path, "ab") as stream:
            stream.write(b"more")
        return header

    monkeypatch.setattr(safetensors_file, "read_header", read_then_grow)
    with pytest.raises(InputError, match="changed"):
        SafetensorsCheckpoint([file])


@implements(
    MethodRecord(
        name="cutting",
        target=f"{__name__}:Cutting",
        summary="cuts an input short",
        capabilities=Capabilities(locality="tensor"),
    )
)
class Cutting(TensorMethod):
    file: str

    def merge(self, group):
        os.truncate(self.file, 3000)
        return group.total()


def test_a_merge_whose_input_is_cut_short_says_so(file, tmp_path):
    other = tmp_path / "other.safetensors"
    write_safetensors(other, STATE)
    checkpoints = {path.stem: SafetensorsCheckpoint([path]) for path in (file, other)}
    models = {name: PooledModel(name, content=each) for name, each in checkpoints.items()}
    with pytest.raises(InputError, match="changed while it was being read"):
        merge_in_memory(Cutting(file=str(other)), ModelPool(models), options=EngineOptions(threads=1))
