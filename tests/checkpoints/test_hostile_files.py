"""Files that lie, lead elsewhere, or would run code: refused by name, and nothing large is allocated."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionbench_core import (
    Checkpoint,
    CorruptFile,
    FusionError,
    NotFound,
    UntrustedFormat,
    open_checkpoint,
    write_safetensors,
)
from fusionbench_core.checkpoints.safetensors_file import read_header

MIB = 2**20
FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextmanager
def at_most(limit: int):
    """Whatever happens inside, Python's own memory grows by no more than `limit` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# --- indices ---------------------------------------------------------------------------------------


def indexed(directory, weight_map, text: str | None = None):
    content = text if text is not None else json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(content)
    return directory


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    write_safetensors(tmp_path / "one.safetensors", {"a": torch.ones(2)})
    with pytest.raises(CorruptFile, match="tensor 'b' is missing") as caught:
        open_checkpoint(indexed(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"}))
    assert "one.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", 3, ["x"], None]
)
def test_a_shard_outside_the_directory_is_refused(tmp_path, name):
    (tmp_path / "one.safetensors").write_bytes(b"x")
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises((CorruptFile, NotFound)):
        open_checkpoint(indexed(inner, {"a": name}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(CorruptFile, match="index"):
        open_checkpoint(indexed(tmp_path, None, text))


def test_shards_may_be_links_as_in_the_cache_of_the_hub(tmp_path):
    blob = tmp_path / "blob"
    write_safetensors(blob, {"a": torch.ones(2)})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "one.safetensors").symlink_to(blob)
    assert open_checkpoint(indexed(snapshot, {"a": "one.safetensors"})).tensor("a").tolist() == [1, 1]


def test_a_link_to_what_is_no_weights_is_refused(tmp_path):
    (tmp_path / "secret").write_text("hunter2: the password")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptFile) as caught:
        open_checkpoint(tmp_path)
    assert "hunter2" not in str(caught.value)


# --- torch files -----------------------------------------------------------------------------------


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}), zipfile.ZIP_STORED)
        archive.writestr("archive/data/0", bytes(64 * MIB))
    with at_most(8 * MIB), pytest.raises(CorruptFile, match="not a file that torch has written") as caught:
        open_checkpoint(path)
    assert "67,108,864" in str(caught.value)


def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.bin")
    with at_most(8 * MIB), pytest.raises(CorruptFile, match=r"tensor 'w' claims 4,000,000,000,000 bytes"):
        open_checkpoint(tmp_path / "x.bin")


NO_STATES = {
    "a number for a name": {1: torch.ones(1)},
    "sparse": {"w": torch.ones(2, 2).to_sparse()},
    "without values": {"w": torch.ones(1, device="meta")},
    "a list": [1],
    "a number": 3,
}


@pytest.mark.parametrize("kind", NO_STATES)
def test_what_is_no_state_dict_is_refused(tmp_path, kind):
    torch.save(NO_STATES[kind], tmp_path / "x.bin")
    with pytest.raises((CorruptFile, UntrustedFormat)) as caught:
        open_checkpoint(tmp_path / "x.bin")
    assert "x.bin" in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_in_a_pickle_runs(tmp_path, legacy):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    torch.save(
        {"w": torch.ones(1), "x": Evil()}, tmp_path / "x.bin", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(UntrustedFormat, match="could run code"):
        open_checkpoint(tmp_path / "x.bin")
    assert not (tmp_path / "was-run").exists()


@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_damaged_torch_files_are_read_or_refused(tmp_path, data):
    path = tmp_path / "x.bin"
    torch.save({"a": torch.arange(4.0), "b": torch.ones(2, 3)}, path)
    path.write_bytes(damaged(data, path.read_bytes()))
    read_or_refused(path)


# --- safetensors -----------------------------------------------------------------------------------


def damaged(data, raw: bytes) -> bytes:
    """Some bytes changed, cut out or put in."""
    content = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    return bytes(content)


def read_or_refused(path, limit: int = 16 * MIB) -> Checkpoint | None:
    """Open and read everything; the only way to fail is a documented error, and memory stays small."""
    with at_most(limit):
        try:
            checkpoint = open_checkpoint(path)
        except FusionError as error:
            if str(path) not in str(error):
                raise
            return None
        for name in checkpoint:
            tensor = checkpoint.tensor(name)
            assert tuple(tensor.shape) == checkpoint.info(name).shape
            assert tensor.nbytes <= path.stat().st_size
            str(name).encode()
        checkpoint.fingerprint()
        return checkpoint


@FUZZ
@given(data=st.data())
def test_damaged_safetensors_files_are_read_or_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)})
    path.write_bytes(damaged(data, path.read_bytes()))
    read_or_refused(path)


numbers = st.one_of(
    st.integers(-2, 40), st.integers(), st.sampled_from([2**31, 2**63, 10**30, True, 1.5, None])
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(
            st.sampled_from(["F32", "BF16", "I64", "BOOL", "F8_E4M3", "U8", "F4", "X"]), numbers
        ),
        "shape": st.one_of(st.lists(numbers, max_size=4), numbers),
        "data_offsets": st.one_of(st.lists(numbers, max_size=3), numbers),
        "more": st.text(max_size=3),
    },
)
texts = st.text(st.characters(codec=None), max_size=6)
headers = st.one_of(
    st.dictionaries(texts, st.one_of(entries, numbers, texts), max_size=4),
    st.dictionaries(texts, entries, max_size=3).flatmap(
        lambda found: st.just({**found, "__metadata__": {"format": "pt", "a": "b"}})
    ),
    st.fixed_dictionaries(
        {"__metadata__": st.one_of(st.dictionaries(texts, st.one_of(texts, numbers)), numbers)}
    ),
)


@FUZZ
@given(header=headers, data=st.binary(max_size=64), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_header_is_read_or_refused(tmp_path, header, data, length):
    path = tmp_path / "x.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    checkpoint = read_or_refused(path)
    if checkpoint is not None:
        # What is accepted covers the file exactly.
        stored = [name for name in checkpoint if name not in checkpoint.aliases]
        assert sum(checkpoint.info(name).nbytes for name in stored) == path.stat().st_size - 8 - len(text)


def test_a_directory_in_place_of_a_file_is_an_input_error(tmp_path):
    with pytest.raises(FusionError, match="cannot be read"):
        read_header(tmp_path)
