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
from fusionbench_core.errors import CorruptFile, NotFound, UntrustedFormat

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
            return _open_files(_indexed_files(index), str(path))
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


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile("the shard index is malformed", file=index, why=repr(error)) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CorruptFile(f"the shard index points outside its directory: {name!r}", file=index)
        if not (index.parent / name).is_file():
            raise NotFound(
                f"shard {name} is missing", file=index, fix="download the checkpoint again, all its shards"
            )
    if not names:
        raise CorruptFile("the shard index names no file", file=index)
    return [index.parent / name for name in names]


def _open_files(files: list[Path], location: str) -> Checkpoint:
    if all(file.suffix in _TORCH for file in files):
        state: dict[str, Tensor] = {}
        for file in files:
            state.update(_load_torch(file))
        return StateDictCheckpoint(state, location)
    return SafetensorsCheckpoint(files, location)


def _load_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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
    return {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
