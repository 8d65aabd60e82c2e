"""Open a file or directory as a checkpoint, by what is in it."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from fusionbench_core.checkpoints.checkpoint import Checkpoint
from fusionbench_core.checkpoints.memory import StateDictCheckpoint
from fusionbench_core.checkpoints.safetensors_file import SafetensorsCheckpoint
from fusionbench_core.errors import CorruptFile, InputError, NotFound, UntrustedFormat

_TORCH = {".bin", ".pt", ".pth", ".ckpt"}


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open weights: a safetensors or torch file, or a directory holding one (sharded or not).

    In a directory, safetensors files win over torch files, and an index over a glob.

    Raises:
        NotFound: if there is nothing to open.
        CorruptFile: if a file is malformed, or an index names files that are missing or elsewhere.
        UntrustedFormat: if a torch file holds more than tensors.
    """
    path = Path(path)
    if path.is_file():
        return _open_files([path], str(path))
    if not path.is_dir():
        raise NotFound(
            f"no checkpoint at {path}", fix="check the path; relative paths start at the working directory"
        )
    for pattern in ("*.safetensors.index.json", "*.bin.index.json"):
        for index in sorted(path.glob(pattern)):
            return _open_indexed(index, str(path))
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return _open_files([path / name], str(path))
    files = sorted(path.glob("*.safetensors"))
    if files:
        return _open_files(files, str(path))
    raise NotFound(
        f"no weights in {path}",
        why="there is no *.safetensors, no pytorch_model.bin and no index of them",
        fix="point to the directory that holds the weights",
    )


def _open_indexed(index: Path, location: str) -> Checkpoint:
    where = _read_index(index)
    names = sorted(set(where.values()))
    checkpoint = _open_files([index.parent / name for name in names], location)
    for tensor, name in where.items():
        if tensor not in checkpoint:
            raise CorruptFile(
                f"tensor {tensor!r} is missing",
                file=index.parent / name,
                why=f"{index.name} says that it is there",
                fix="download the checkpoint again, all its shards",
            )
    return checkpoint


def _read_index(index: Path) -> dict[str, str]:
    """Tensor name -> name of its shard, which is there.

    Shards may be links, as they are in the hub's cache: what they lead to is read as tensors only.
    """
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile("the shard index is malformed", file=index, why=repr(error)) from error
    except OSError as error:
        raise InputError("the shard index cannot be read", file=index, why=str(error)) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CorruptFile(f"the shard index points outside its directory: {name!r}", file=index)
        if "\0" in name or not (index.parent / name).is_file():
            raise NotFound(
                f"shard {name!r} is missing", file=index, fix="download the checkpoint again, all its shards"
            )
    if not names:
        raise CorruptFile("the shard index names no file", file=index)
    return where


def _open_files(files: list[Path], location: str) -> Checkpoint:
    if all(file.suffix in _TORCH for file in files):
        state: dict[str, Tensor] = {}
        for file in files:
            state.update(_load_torch(file))
        return StateDictCheckpoint(state, location)
    return SafetensorsCheckpoint(files, location)


def _load_torch(path: Path) -> dict[str, Tensor]:
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise UntrustedFormat(
            "this file holds more than tensors, and reading it could run code",
            file=path,
            why=str(error).splitlines()[0],
            fix="save the weights as safetensors where you trust the file, and use that",
        ) from error
    except Exception as error:  # bytes that are no pickle make the unpickler raise anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CorruptFile("not a readable torch file", file=path, why=why) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise CorruptFile(f"it holds a {type(loaded).__name__}, not a state dict", file=path)
    state = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    for key, tensor in state.items():
        _check_tensor(path, key, tensor)
    return state


def _check_archive(path: Path) -> None:
    """torch stores, and compresses nothing: whatever would grow while it is read is not from there."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise CorruptFile(
                "not a file that torch has written",
                file=path,
                why=f"its entry {entry.filename!r} takes {entry.compress_size:,} bytes "
                f"and would become {entry.file_size:,}",
            )


def _check_tensor(path: Path, key: object, tensor: Tensor) -> None:
    if not isinstance(key, str):
        raise CorruptFile(f"a tensor is called {key!r}, which is no name", file=path)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CorruptFile(f"tensor {key!r} is sparse, quantised or empty of values", file=path)
    if tensor.nbytes > path.stat().st_size:
        raise CorruptFile(
            f"tensor {key!r} claims {tensor.nbytes:,} bytes",
            file=path,
            why=f"the whole file has {path.stat().st_size:,}",
        )
