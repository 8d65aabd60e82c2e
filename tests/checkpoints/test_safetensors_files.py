"""safetensors files: read what the real library writes, write what it reads, refuse what lies."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from fusionbench_core import (
    CorruptFile,
    NotFound,
    TensorInfo,
    UntrustedFormat,
    open_checkpoint,
    write_safetensors,
)
from fusionbench_core.checkpoints import SafetensorsCheckpoint
from fusionbench_core.checkpoints.safetensors_file import read_header
from fusionbench_core.checkpoints.writer import SafetensorsWriter


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "w": torch.randn(5, 7, generator=generator),
        "half": torch.randn(4, 3, generator=generator).to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "ids": torch.arange(6),
        "mask": torch.tensor([True, False]),
    }


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_reads_what_safetensors_writes(tmp_path):
    safetensors.torch.save_file(tensors(), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == set(tensors())
    assert all(equal(checkpoint.tensor(name), tensor) for name, tensor in tensors().items())
    assert torch.equal(checkpoint.chunk("w", 3, 11), tensors()["w"].reshape(-1)[3:11])
    assert torch.equal(checkpoint.chunk("w", 30, 99), tensors()["w"].reshape(-1)[30:])


def test_safetensors_reads_what_we_write(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", tensors())
    loaded = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert all(equal(loaded[name], tensor) for name, tensor in tensors().items())
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


def test_shards_hold_the_same_as_one_file(tmp_path):
    state = tensors()
    layout = [(name, TensorInfo(tuple(tensor.shape), tensor.dtype)) for name, tensor in state.items()]
    writer = SafetensorsWriter(tmp_path, layout, max_shard_size=100)
    for name, tensor in state.items():
        writer.write(name, 0, tensor)
    writer.finish()
    assert (tmp_path / "model.safetensors.index.json").exists()
    sharded = open_checkpoint(tmp_path)
    (tmp_path / "one").mkdir()
    write_safetensors(tmp_path / "one" / "model.safetensors", state)
    assert sharded.fingerprint() == open_checkpoint(tmp_path / "one").fingerprint()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


def test_tied_names_that_save_model_dropped_come_back(tmp_path):
    model = Tied()
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == {"embed.weight", "head.weight"}
    assert len(checkpoint.aliases) == 1
    assert torch.equal(checkpoint.tensor("head.weight"), model.embed.weight)


def test_a_write_into_a_view_does_not_reach_the_file(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", tensors())
    open_checkpoint(tmp_path / "x.safetensors").tensor("w").zero_()
    assert torch.equal(open_checkpoint(tmp_path / "x.safetensors").tensor("w"), tensors()["w"])


def header(entries: dict, data: int = 0) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "empty file": b"",
    "shorter than its header says": (1000).to_bytes(8, "little") + b"{}",
    "a header of 10 GB": (10**10).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "not an object": (2).to_bytes(8, "little") + b"[]",
    "deeply nested": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "offsets past the end": header({"a": entry(offsets=(0, 400), shape=(100,))}, 4),
    "offsets against the shape": header({"a": entry(shape=(2,))}, 4),
    "overlap": header({"a": entry(), "b": entry()}, 4),
    "gap": header({"a": entry(offsets=(4, 8))}, 8),
    "trailing bytes": header({"a": entry()}, 9),
    "unknown dtype": header({"a": entry(dtype="F31")}, 4),
    "negative shape": header({"a": entry(shape=(-1,))}, 4),
    "boolean shape": header({"a": entry(shape=(True,))}, 4),
    "huge shape": header({"a": entry(shape=(2**62, 2**62), offsets=(0, 4))}, 4),
    "a name twice": (lambda t: len(t).to_bytes(8, "little") + t)(b'{"a": {}, "a": {}}'),
    "entry is a list": header({"a": [1]}, 4),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_headers_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(CorruptFile, match="not a valid safetensors file") as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", tensors())
    raw = (tmp_path / "x.safetensors").read_bytes()
    for cut in (7, 50, len(raw) - 1):
        (tmp_path / "y.safetensors").write_bytes(raw[:cut])
        with pytest.raises(CorruptFile):
            SafetensorsCheckpoint([tmp_path / "y.safetensors"])


def test_an_index_may_not_leave_its_directory(tmp_path):
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    inner = tmp_path / "model"
    inner.mkdir()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (inner / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptFile, match="outside its directory"):
        open_checkpoint(inner)


def test_a_missing_shard_is_named(tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotFound, match="model-00001-of-00002"):
        open_checkpoint(tmp_path)


def test_torch_files_are_read_without_running_code(tmp_path):
    torch.save({"state_dict": tensors()}, tmp_path / "ok.pt")
    assert torch.equal(open_checkpoint(tmp_path / "ok.pt").tensor("w"), tensors()["w"])

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UntrustedFormat, match="could run code"):
        open_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "was-run").exists()


def test_a_torch_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "bad.bin").write_bytes(b"hello")
    with pytest.raises((CorruptFile, UntrustedFormat)):
        open_checkpoint(tmp_path / "bad.bin")


def test_nothing_there_says_what_was_looked_for(tmp_path):
    with pytest.raises(NotFound, match="no weights"):
        open_checkpoint(tmp_path)
    with pytest.raises(NotFound, match="no checkpoint"):
        open_checkpoint(tmp_path / "nowhere")


def test_the_fingerprint_does_not_depend_on_order_or_sharding_but_on_content(tmp_path):
    state = tensors()
    write_safetensors(tmp_path / "a.safetensors", state)
    write_safetensors(tmp_path / "b.safetensors", dict(reversed(state.items())))
    state["scalar"] = torch.tensor(2.25)
    write_safetensors(tmp_path / "c.safetensors", state)
    a, b, c = (open_checkpoint(tmp_path / f"{name}.safetensors").fingerprint() for name in "abc")
    assert a == b != c
