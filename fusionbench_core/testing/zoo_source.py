"""The zoo on disk: a model source, for what is read from files or rebuilt in another process.

This file is a plugin of its own, `--plugin zoo_source.py`, for processes that load what the kit wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from fusionbench_core.checkpoints import Checkpoint, StateDictCheckpoint, open_checkpoint
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.hookspecs import hookimpl
from fusionbench_core.pools import ModelPool, ModelSource, PooledModel
from fusionbench_core.records import SourceRecord, implements
from fusionbench_core.testing.zoo import ARCHITECTURES, Case

ZOO_SOURCE = SourceRecord(
    name="conformance_zoo",
    target="fusionbench_core.testing.zoo_source:ZooSource",
    summary="small models of the conformance kit",
)

_NOTE = "zoo.json"


@hookimpl
def fb_model_sources() -> Iterable[SourceRecord]:
    yield ZOO_SOURCE


@implements(ZOO_SOURCE)
class ZooSource(ModelSource):
    """A directory with safetensors files and the name of an architecture of the zoo."""

    @classmethod
    def recognises(cls, path: str) -> bool:
        return (Path(path) / _NOTE).is_file()

    def open(self) -> Checkpoint:
        return open_checkpoint(self.path)

    def skeleton(self) -> nn.Module:
        architecture = json.loads((Path(self.path) / _NOTE).read_text(encoding="utf-8"))["architecture"]
        with torch.random.fork_rng(devices=[]):
            return ARCHITECTURES[architecture]().eval()

    def assets(self) -> Sequence[Path]:
        return [Path(self.path) / _NOTE]


def pool_on_disk(
    case: Case, directory: Path, *, base: bool = True, reverse: bool = False, max_shard_size: int = 2**40
) -> ModelPool:
    """A case, written one directory a model, as a pool that reads from there.

    Args:
        case: What to write.
        directory: Where; made if need be.
        base: Whether the pool has the base.
        reverse: Write the tensors of each model in reverse order.
        max_shard_size: Bytes of one file at most.
    """

    def written(name: str, module: nn.Module) -> PooledModel:
        path = directory / name
        path.mkdir(parents=True)
        (path / _NOTE).write_text(json.dumps({"architecture": case.name}), encoding="utf-8")
        _write(path, StateDictCheckpoint.of(module), reverse, max_shard_size)
        return PooledModel(name, source=ZooSource(path=str(path)))

    models = {name: written(name, module) for name, module in case.models.items()}
    return ModelPool(models, written("_base_", case.base) if base else None)


def _write(path: Path, checkpoint: Checkpoint, reverse: bool, max_shard_size: int) -> None:
    names = [name for name in checkpoint if name not in checkpoint.aliases]
    layout = [(name, checkpoint.info(name)) for name in (reversed(names) if reverse else names)]
    writer = SafetensorsWriter(path, layout, aliases=checkpoint.aliases, max_shard_size=max_shard_size)
    for name, _ in layout:
        writer.write(name, 0, checkpoint.tensor(name))
    writer.finish()
