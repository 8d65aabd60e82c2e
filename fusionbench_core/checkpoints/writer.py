"""Write safetensors files header first: every offset is known from the plan, any thread writes anywhere."""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import TensorInfo
from fusionbench_core.dtypes import TAGS
from fusionbench_core.files import output_error, write_atomically


@dataclass(frozen=True)
class _Place:
    shard: int
    offset: int
    info: TensorInfo


class SafetensorsWriter:
    """A sink that is one or more safetensors files in `directory`, each at full size from the start.

    Args:
        directory: Existing directory to write into.
        layout: Name and info of each tensor, in file order.
        aliases: Tied names, recorded in the metadata as `safetensors.torch.save_model` does.
        max_shard_size: Bytes of tensor data in one file at most (a single tensor may exceed it).
        stem: Name of the file without its ending.
        resume: Keep files that are there and have exactly this layout.
        reserve: Make sure now that the disk has room; without, what is not written are holes of zeros.

    Raises:
        OutputError: if the files cannot be made, e.g. for lack of space: all of it is reserved here.
    """

    def __init__(
        self,
        directory: Path,
        layout: Iterable[tuple[str, TensorInfo]],
        *,
        aliases: Mapping[str, str] | None = None,
        max_shard_size: int = 5 * 10**9,
        stem: str = "model",
        resume: bool = False,
        reserve: bool = True,
    ) -> None:
        shards = _split(list(layout), max_shard_size)
        count = len(shards)
        names = (
            [f"{stem}.safetensors"]
            if count == 1
            else [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        )
        self.directory = directory
        self.files = [directory / name for name in names]
        self.resumed = resume
        self._places: dict[str, _Place] = {}
        self._descriptors: list[int] = []
        for number, (path, shard) in enumerate(zip(self.files, shards)):
            tied = {a: k for a, k in (aliases or {}).items() if k in dict(shard)}
            header = _header(shard, tied)
            offset = len(header)
            for name, info in shard:
                self._places[name] = _Place(number, offset, info)
                offset += info.nbytes
            kept = resume and _has_layout(path, header, offset)
            self.resumed = self.resumed and kept
            self._descriptors.append(_create(path, header, offset, keep=kept, reserve=reserve))
        self._index = {stem: [(name, names[place.shard]) for name, place in self._places.items()]}
        self._stem = stem

    def write(self, name: str, start: int, values: Tensor) -> None:
        place = self._places[name]
        raw = values.contiguous().view(-1).view(torch.uint8).numpy()
        _pwrite(
            self._descriptors[place.shard],
            raw.data,
            place.offset + start * place.info.dtype.itemsize,
            self.files[place.shard],
        )

    def read(self, name: str) -> Tensor:
        """The tensor as a view of the mapped file: takes no memory of its own, however large it is."""
        place = self._places[name]
        if not place.info.nbytes:
            return torch.empty(place.info.shape, dtype=place.info.dtype)
        skip = place.offset % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._descriptors[place.shard],
            skip + place.info.nbytes,
            access=mmap.ACCESS_COPY,
            offset=place.offset - skip,
        )
        flat = torch.frombuffer(mapped, dtype=place.info.dtype, count=place.info.numel, offset=skip)
        return flat.view(place.info.shape)

    def flush(self, file: Path | None = None) -> None:
        """Wait until a file, or everything, is on the disk.

        Raises:
            OutputError: if the disk reports an error.
        """
        for descriptor, path in zip(self._descriptors, self.files):
            try:
                if file in (None, path):
                    os.fsync(descriptor)
            except OSError as error:
                raise output_error(error, path) from error

    def finish(self) -> None:
        """Flush, close, and write the index if there is more than one file.

        Raises:
            OutputError: if the disk reports an error.
        """
        self.flush()
        self.close()
        if len(self.files) > 1:
            total = sum(place.info.nbytes for place in self._places.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(self._index[self._stem])}
            write_atomically(
                self.directory / f"{self._stem}.safetensors.index.json", json.dumps(index, indent=1)
            )

    def close(self) -> None:
        """Close the files as they are."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def write_safetensors(
    path: Path, state: Mapping[str, Tensor], aliases: Mapping[str, str] | None = None
) -> None:
    """Write a small state dict to one file, atomically.

    Raises:
        OutputError: if it cannot be written.
    """
    layout = [(name, TensorInfo(tuple(tensor.shape), tensor.dtype)) for name, tensor in state.items()]
    partial = path.with_name(f".{path.stem}.{os.getpid()}")
    writer = SafetensorsWriter(path.parent, layout, aliases=aliases, max_shard_size=2**62, stem=partial.name)
    try:
        for name, tensor in state.items():
            writer.write(name, 0, tensor.detach().cpu())
        writer.finish()
        os.replace(writer.files[0], path)
    except BaseException:
        writer.close()
        writer.files[0].unlink(missing_ok=True)
        raise


def _split(layout: list[tuple[str, TensorInfo]], limit: int) -> list[list[tuple[str, TensorInfo]]]:
    shards: list[list[tuple[str, TensorInfo]]] = [[]]
    size = 0
    for name, info in layout:
        if shards[-1] and size + info.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append((name, info))
        size += info.nbytes
    return shards


def _header(shard: list[tuple[str, TensorInfo]], aliases: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **aliases}}
    offset = 0
    for name, info in shard:
        entries[name] = {
            "dtype": TAGS[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.nbytes],
        }
        offset += info.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _has_layout(path: Path, header: bytes, size: int) -> bool:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size == size and file.read(len(header)) == header
    except OSError:
        return False


def _create(path: Path, header: bytes, size: int, *, keep: bool, reserve: bool) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (0 if keep else os.O_TRUNC), 0o644)
        if not keep:
            if reserve:
                _reserve(descriptor, size)
            _pwrite(descriptor, memoryview(header), 0, path)
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise output_error(error, path) from error
    return descriptor


def _reserve(descriptor: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate") or not size:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot reserve; there, a full disk is met while writing.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _pwrite(descriptor: int, data: memoryview, offset: int, path: Path) -> None:
    try:
        while len(data):
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    except OSError as error:
        raise output_error(error, path) from error
