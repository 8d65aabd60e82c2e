"""safetensors files, single or sharded: headers checked first, then zero-copy views of mapped files."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo
from fusionbench_core.dtypes import SAFETENSORS
from fusionbench_core.errors import CorruptFile, InputError, NotFound

MAX_HEADER = 100 * 2**20
"""Largest header accepted, in bytes: the cap of the safetensors format itself."""

_PERIOD = 0.005
"""Seconds after which an open file is looked after again."""


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in a file; offsets in bytes from the start of the file."""

    info: TensorInfo
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """The checked header of one file."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int


def read_header(path: Path) -> Header:
    """Read and check the header; nothing is allocated that the file's size does not cover.

    Raises:
        NotFound: if there is no such file.
        CorruptFile: if the file is truncated, or its header is malformed, contradicts itself or the
            file's size, or describes tensors that overlap.
    """
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_HEADER or 8 + length > size:
                raise _corrupt(path, f"it claims a header of {length:,} bytes; the file has {size:,}")
            raw = file.read(length)
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}") from error
    except OSError as error:
        raise InputError("this file cannot be read", file=path, why=str(error)) from error
    try:
        header = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt(path, "its __metadata__ is not a mapping of strings")
    for text in (*header, *metadata, *metadata.values()):
        if not _is_unicode(text):
            raise _corrupt(path, f"it holds {text!r}, which is no text")
    entries = {key: _entry(path, key, value, 8 + length, size) for key, value in header.items()}
    _check_cover(path, entries, 8 + length, size)
    return Header(entries, metadata, size)


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of characters, which nothing can write down again."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _entry(path: Path, key: str, value: object, data: int, size: int) -> Entry:
    try:
        dtype = SAFETENSORS[value["dtype"]]  # type: ignore[index]
        shape = tuple(value["shape"])  # type: ignore[index]
        start, stop = value["data_offsets"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, f"tensor {key!r} has a malformed entry ({error!r})") from error
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise _corrupt(path, f"tensor {key!r} has a negative or non-integer shape or offset")
    info = TensorInfo(shape, dtype)
    if stop - start != info.nbytes or data + stop > size:
        raise _corrupt(
            path, f"tensor {key!r} {info} needs {info.nbytes:,} bytes, its offsets are {start:,} to {stop:,}"
        )
    return Entry(info, data + start, data + stop)


def _check_cover(path: Path, entries: Mapping[str, Entry], data: int, size: int) -> None:
    end = data
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            kind = "overlaps another" if entry.start < end else "leaves a gap before it"
            raise _corrupt(path, f"tensor {key!r} {kind}")
        end = entry.stop
    if end != size:
        raise _corrupt(path, f"the tensors end at byte {end:,}; the file has {size:,}")


def _corrupt(path: Path, why: str) -> CorruptFile:
    return CorruptFile(
        "not a valid safetensors file", file=path, why=why, fix="download or write the file again"
    )


class SafetensorsCheckpoint(Checkpoint):
    """One or more safetensors files, mapped into memory; tensors are views of the mapping.

    The mapping is private (copy-on-write): even a caller that breaks the contract and writes into a
    tensor cannot change the file. Names dropped when the file was written because they were tied are
    read back from the metadata, as `safetensors.torch.save_model` records them.

    A file that is written to while it is read raises `InputError`: to touch what was cut off would end the
    process. One that is replaced or removed is read on as it was.

    Args:
        files: The files; names must not repeat among them.
        location: What to call it in messages.
    """

    def __init__(self, files: list[Path], location: str | None = None) -> None:
        self.location = location or str(files[0])
        self._files = list(files)
        self._headers = [read_header(path) for path in files]
        self._where: dict[str, tuple[int, Entry]] = {}
        for number, header in enumerate(self._headers):
            ordered = sorted(header.entries.items(), key=lambda item: item[1].start)
            for key, entry in ordered:
                if key in self._where:
                    raise _corrupt(files[number], f"tensor {key!r} is in two shards")
                self._where[key] = (number, entry)
        self._aliases = {
            alias: kept
            for header in self._headers
            for alias, kept in header.metadata.items()
            if kept in self._where and alias not in self._where
        }
        self._keys = (*self._where, *self._aliases)
        self._open = [_OpenFile(path, header.size) for path, header in zip(files, self._headers)]

    @property
    def metadata(self) -> dict[str, str]:
        """The files' metadata, merged."""
        return {key: value for header in self._headers for key, value in header.metadata.items()}

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        return self._where[self._aliases.get(key, key)][1].info

    def tensor(self, key: str) -> Tensor:
        info = self.info(key)
        return self.chunk(key, 0, info.numel).view(info.shape)

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        number, entry = self._where[self._aliases.get(key, key)]
        stop = min(stop, entry.info.numel)
        if stop <= start:
            return torch.empty(0, dtype=entry.info.dtype)
        offset = entry.start + start * entry.info.dtype.itemsize
        mapped = self._open[number].unchanged()
        return torch.frombuffer(mapped, dtype=entry.info.dtype, count=stop - start, offset=offset)

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def identity(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for path, header in zip(self._files, self._headers):
            stat = os.stat(path)
            digest.update(
                f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{len(header.entries)}".encode()
            )
        return digest.hexdigest()


class _OpenFile:
    """A mapped file that is looked after: whether anybody has written to it since it was opened."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self._known = self._now()
        if self._known[0] != size:
            raise self._changed()
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
        self._due = time.monotonic() + _PERIOD

    def unchanged(self) -> mmap.mmap:
        """The mapping, looked after again if it is time to: asking the system takes longer than some reads.

        Raises:
            InputError: if the file has changed.
        """
        if (now := time.monotonic()) >= self._due:
            self._due = now + _PERIOD
            if self._now() != self._known:
                raise self._changed()
        return self._map

    def _now(self) -> tuple[int, int]:
        stat = os.fstat(self._descriptor)
        return stat.st_size, stat.st_mtime_ns

    def _changed(self) -> InputError:
        return InputError(
            "this file changed while it was being read",
            file=self._path,
            why="what was read of it so far and what would be read now are not of one model",
            fix="wait until whoever writes it has finished, then run again",
        )
