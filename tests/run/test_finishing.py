"""While outputs are hashed and flushed, which can take long, it is told how far that is."""

from __future__ import annotations

import threading

import torch

from fusionbench_core.artefact import write
from fusionbench_core.checkpoints import TensorInfo
from fusionbench_core.checkpoints.checkpoint import hash_tensor
from fusionbench_core.checkpoints.writer import SafetensorsWriter

VALUES = torch.arange(4.0)


def finish(directory, on_finish):
    """Two files of two tensors each are finished."""
    info = TensorInfo((4,), torch.float32)
    writer = SafetensorsWriter(directory, [(name, info) for name in "abcd"], max_shard_size=2 * info.nbytes)
    assert len(writer.files) == 2
    for name in "abcd":
        writer.write(name, 0, VALUES)
    return write._flush_and_hash(writer, list("abcd"), 2, on_finish)


def test_it_is_told_while_the_disk_is_waited_for(tmp_path, monkeypatch):
    told, heard, flush = [], threading.Event(), SafetensorsWriter.flush

    def flush_when_heard(writer, file=None):
        assert heard.wait(20)
        flush(writer, file)

    def on_finish(done, total):
        told.append((done, total))
        if done == 4:  # All tensors are hashed, and no file is flushed.
            heard.set()

    monkeypatch.setattr(SafetensorsWriter, "flush", flush_when_heard)
    monkeypatch.setattr(write, "_HEARTBEAT", 0.001)
    hashes = finish(tmp_path, on_finish)
    assert (4, 6) in told
    assert told[-1] == (6, 6)
    assert told == sorted(told)
    assert hashes == dict.fromkeys("abcd", hash_tensor(VALUES))


def test_nothing_is_told_in_between_if_it_takes_no_time(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(write, "_HEARTBEAT", 60.0)
    finish(tmp_path, lambda done, total: told.append((done, total)))
    assert told == [(6, 6)]
