"""Load artefacts back, in any process: registered sources and builders, safetensors, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from fusionbench_core.artefact.adapter import read_adapter
from fusionbench_core.artefact.builder import BuildContext
from fusionbench_core.artefact.describe import TRUST
from fusionbench_core.artefact.manifest import BASE, NAME, Manifest, read_manifest
from fusionbench_core.checkpoints import Checkpoint, open_checkpoint
from fusionbench_core.checkpoints.fingerprints import fingerprint
from fusionbench_core.config.errors import explain
from fusionbench_core.errors import CorruptFile, IncompatibleModels, MissingCapability
from fusionbench_core.pools.source import ModelSource, load_into
from fusionbench_core.registry import Registry


def is_artefact(path: Path) -> bool:
    """Whether a directory holds a fusion.json."""
    return (path / NAME).is_file()


def load_artefact(directory: Path, registry: Registry) -> nn.Module:
    """The live module of an artefact, in eval mode.

    Raises:
        InputError: if files are missing or malformed.
        UnknownName: if the source or the builder is not installed.
        IncompatibleModels: if a member changed since, or tensors do not fit.
        MissingCapability: if it was made from bare state dicts, which have no architecture.
    """
    manifest = read_manifest(directory)
    if manifest.kind == "weights":
        source = _source(manifest.source, registry, directory)
        return source.build(source.open())
    if manifest.kind == "adapter":
        module = _build_member(manifest, BASE, registry)
        read_adapter(directory).add_to(module)
        return module.eval().requires_grad_(False)
    builder = registry.load("builder", _name(manifest, directory))
    context = BuildContext(
        arguments=manifest.arguments,
        skeleton=lambda: _source(manifest.source, registry, directory).skeleton(),
        member=lambda name: _build_member(manifest, name, registry),
        checkpoint=lambda name: _open_member(manifest, name, registry)[1],
    )
    module = builder(context)
    if manifest.tensors:
        load_into(module, open_checkpoint(directory))
    return module.eval().requires_grad_(False)


def _name(manifest: Manifest, directory: Path) -> str:
    if not manifest.builder:
        raise CorruptFile("fusion.json names no builder", file=directory / NAME)
    return manifest.builder


def _source(
    described: Mapping[str, Any] | None, registry: Registry, directory: Path | None = None
) -> ModelSource:
    if described is None:
        raise MissingCapability(
            "this artefact holds bare tensors, and no model source says what their architecture is",
            fix="read them with fusionbench_core.open_checkpoint(PATH)",
        )
    cls = registry.load("source", described["name"])
    parameters = {key: value for key, value in described["parameters"].items() if key != TRUST}
    if directory is not None:
        parameters["path"] = str(directory)
    try:
        return cls.model_validate(parameters)
    except ValidationError as error:
        raise explain(error, cls, where="source", file=directory) from error


def _build_member(manifest: Manifest, name: str, registry: Registry) -> nn.Module:
    source, checkpoint = _open_member(manifest, name, registry)
    return source.build(checkpoint)


def _open_member(manifest: Manifest, name: str, registry: Registry) -> tuple[ModelSource, Checkpoint]:
    described = manifest.members.get(name)
    if described is None:
        raise CorruptFile(f"fusion.json knows no member {name!r}", fix="was it made from modules in memory?")
    source = _source(described, registry)
    checkpoint = source.open()
    if described.get("fingerprint") not in (None, fingerprint(checkpoint)):
        raise IncompatibleModels(
            f"member {name!r} is not the model it was when this was made",
            file=checkpoint.location,
            why="its content has another hash",
            fix="restore it, or fuse again",
        )
    return source, checkpoint
