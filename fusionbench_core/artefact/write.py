"""Write artefacts: everything under a temporary name, renamed when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core.allocator import give_back_freed_memory
from fusionbench_core.artefact.adapter import Adapter, write_adapter
from fusionbench_core.artefact.card import model_card
from fusionbench_core.artefact.chat_template import write_chat_template
from fusionbench_core.artefact.complete import complete_state
from fusionbench_core.artefact.describe import describe_method, describe_pool, describe_source
from fusionbench_core.artefact.manifest import BASE, NAME, Manifest
from fusionbench_core.checkpoints.checkpoint import content_hash, hash_tensor
from fusionbench_core.checkpoints.checksum import checksum
from fusionbench_core.checkpoints.fingerprints import fingerprint
from fusionbench_core.checkpoints.memory import StateDictCheckpoint
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.dtypes import dtype_name
from fusionbench_core.engine.integers import CHEAP
from fusionbench_core.engine.journal import NAME as JOURNAL
from fusionbench_core.engine.journal import Journal
from fusionbench_core.engine.merge import Statistics, StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import Plan
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.errors import InsufficientResources, MissingCapability, OutputError, UntrustedFormat
from fusionbench_core.files import write_atomically
from fusionbench_core.methods.fused import Fused
from fusionbench_core.methods.method import Method, TensorMethod
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.pools.reference import resolve_path
from fusionbench_core.records import MethodRecord

_HEARTBEAT = 1.0
"""Seconds between two words about how far the finishing of the files is."""


class ArtefactWriter:
    """Writes one artefact to `directory`, which must not exist.

    Until `publish` it is called `.NAME.partial`; a merge that was interrupted goes on from there.

    Args:
        directory: Final place.
        method: What made it.
        record: The method's record with its origin.
        pool: What it was made of.
        options: Engine settings.
        seed: Seed of the run.

    Raises:
        OutputError: if the directory exists, or cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        method: Method,
        record: MethodRecord,
        pool: ModelPool,
        *,
        options: EngineOptions,
        seed: int = 0,
    ) -> None:
        if directory.exists():
            raise OutputError(
                f"{directory} exists already", fix="choose another output directory, or remove this one"
            )
        self._final = directory
        self._partial = directory.with_name(f".{directory.name}.partial")
        self._method, self._record, self._pool, self._options, self._seed = (
            method,
            record,
            pool,
            options,
            seed,
        )
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {self._partial}", why=str(error), fix="choose another place"
            ) from error

    def merge(
        self,
        plan: Plan,
        method: TensorMethod,
        *,
        statistics: Statistics | None = None,
        on_step: Callable[[PlanStep], None] = lambda step: None,
        on_survey: Callable[[int, int], None] = lambda done, total: None,
        on_finish: Callable[[int, int], None] = lambda done, total: None,
    ) -> Manifest:
        """Stream a merge to disk, going on after the last tensor an interrupted one has written.

        `on_finish` is told every second how many tensors are hashed and files flushed, after the last one is
        merged.
        """
        self._check_space(plan.write_bytes)
        layout = [(step.name, step.info) for step in plan]
        writer = SafetensorsWriter(
            self._partial,
            layout,
            aliases=plan.aliases,
            max_shard_size=self._options.max_shard_size,
            resume=True,
        )
        self._clear({JOURNAL, *(file.name for file in writer.files)})
        journal = Journal(self._partial / JOURNAL, plan.key, resume=writer.resumed)
        try:
            done = {name for name, noted in journal.done.items() if _intact(writer, name, noted)}

            def written(step: PlanStep, checksum: int) -> None:
                journal.record(step.name, checksum)
                on_step(step)

            for step in plan:
                if step.name in done:
                    on_step(step)
            StreamingMerge(
                method,
                plan,
                self._pool,
                writer,
                options=self._options,
                seed=self._seed,
                statistics=statistics,
            ).run(written, on_survey, done=done)
            hashes = _flush_and_hash(writer, [name for name, _ in layout], self._options.threads, on_finish)
        finally:
            writer.close()
            journal.close()
            give_back_freed_memory()
        infos = dict(layout)
        entries = [(name, infos[name], digest) for name, digest in hashes.items()]
        tied = [(alias, infos[kept], kept) for alias, kept in plan.aliases.items()]
        return self._finish(
            Manifest(kind="weights", content_hash=content_hash([*entries, *tied]), **self._facts())
        )

    def outline(self, plan: Plan) -> None:
        """Write what a merge by this plan would, but for the weights, which are holes that take no space.

        For whoever plans what is to be made of the result.
        """
        writer = SafetensorsWriter(
            self._partial,
            [(step.name, step.info) for step in plan],
            aliases=plan.aliases,
            max_shard_size=self._options.max_shard_size,
            reserve=False,
        )
        reference = self._pool.reference_model.checkpoint
        try:
            for step in plan:
                # Planning compares small integers.
                if not step.info.is_floating and step.info.numel <= CHEAP and step.name in reference:
                    writer.write(step.name, 0, reference.tensor(step.name).to(step.info.dtype))
            writer.finish()
        finally:
            writer.close()
        self._finish(Manifest(kind="weights", content_hash="", **self._facts()))
        self.publish()

    def fused(self, fused: Fused) -> Manifest:
        """Write what a model method made."""
        self._clear(set())
        if fused.state is not None:
            state = complete_state(fused.state, self._pool, self._options.dtype)
            return self._finish(Manifest(kind="weights", content_hash=self._tensors(state), **self._facts()))
        assert fused.module is not None
        if fused.adapter is not None:
            return self._adapter(fused.adapter, fused.module)
        tensors = fused.module.state_dict() if fused.tensors is None else fused.tensors
        tensors = _in_dtype(tensors, self._options.dtype)
        if fused.builder is None:
            plain = Manifest(kind="weights", content_hash=self._tensors(tensors), **self._facts())
            return self._finish(plain, fused.assets)
        members = {} if tensors else _describe_members(self._pool)
        return self._finish(
            Manifest(
                kind="module",
                builder=fused.builder,
                arguments=dict(fused.arguments),
                tensors=bool(tensors),
                members=members,
                content_hash=self._tensors(tensors) if tensors else "",
                **self._facts(),
            )
        )

    def publish(self) -> None:
        """Give the artefact, which is whole now, its final name.

        Raises:
            OutputError: if it cannot be renamed.
        """
        try:
            (self._partial / JOURNAL).unlink(missing_ok=True)
            os.replace(self._partial, self._final)
            _sync(self._final.parent)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._final}", why=str(error), fix="choose another place"
            ) from error

    def _clear(self, keep: set[str]) -> None:
        """Remove what an interrupted run has left, perhaps one of another layout."""
        for path in self._partial.iterdir():
            if path.name not in keep:
                path.unlink()

    def _adapter(self, adapter: Adapter, module: nn.Module) -> Manifest:
        """The adapter alone; the base is named, and not copied."""
        base = self._pool.base
        if base is None or base.source is None:
            raise MissingCapability(
                "an adapter names its base, and this one is in memory only", fix="give the base as a path"
            )
        local = resolve_path(base.source.path)
        place = str(local.resolve()) if local else base.source.path.partition("@")[0]
        content_hash = write_adapter(self._partial, adapter, module, place, self._options.dtype)
        return self._finish(
            Manifest(
                kind="adapter", members={BASE: _member(base)}, content_hash=content_hash, **self._facts()
            )
        )

    def _tensors(self, state: Mapping[str, Tensor]) -> str:
        checkpoint = StateDictCheckpoint(state)
        layout = [(name, checkpoint.info(name)) for name in checkpoint if name not in checkpoint.aliases]
        self._check_space(sum(info.nbytes for _, info in layout))
        writer = SafetensorsWriter(
            self._partial, layout, aliases=checkpoint.aliases, max_shard_size=self._options.max_shard_size
        )
        try:
            for name, _ in layout:
                writer.write(name, 0, checkpoint.tensor(name))
            writer.finish()
        finally:
            writer.close()
        return checkpoint.fingerprint()

    def _facts(self) -> dict[str, Any]:
        source = self._pool.reference_model.source
        return {
            "method": describe_method(self._method, self._record),
            "source": _without_path(describe_source(source.for_artefact(self._final))) if source else None,
            "base_models": describe_pool(self._pool),
            "seed": self._seed,
        }

    def _check_space(self, needed: int) -> None:
        written = sum(file.stat().st_size for file in self._partial.glob("*.safetensors"))
        check_space(needed - written, self._final)

    def _finish(self, manifest: Manifest, assets: Mapping[str, str] | None = None) -> Manifest:
        # An adapter beside the base's config.json would be taken for a model without weights.
        source = None if manifest.kind == "adapter" else self._pool.reference_model.source
        try:
            for asset in source.assets() if source else ():
                shutil.copyfile(_inside(asset), self._partial / asset.name)
            changed = source.changed_assets() if source else {}
            for name, text in {**changed, **(assets or {})}.items():
                write_atomically(self._partial / name, text)
            write_chat_template(self._pool, self._partial)
            _state_dtype(self._partial / "config.json", self._options.dtype)
            write_atomically(self._partial / "README.md", model_card(manifest, self._record.paper))
            write_atomically(self._partial / NAME, manifest.to_text())
            for path in (*self._partial.iterdir(), self._partial):
                _sync(path)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._final}", why=str(error), fix="choose another place"
            ) from error
        return manifest


def check_space(needed: int, place: Path) -> None:
    """Whether the disk has room for so many bytes at a place, which need not exist yet.

    Raises:
        InsufficientResources: if it has not.
    """
    there = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InsufficientResources(
            f"the output needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            directory=place.parent,
            fix="free some space, or choose another output directory",
        )


def _inside(asset: Path) -> Path:
    """The asset, unless it is a link out of its model, to something that nobody meant to pass on."""
    place = asset.parent
    # The hub's cache holds links from snapshots/COMMIT to the blobs beside.
    root = place.parent.parent if place.parent.name == "snapshots" else place
    if not asset.resolve().is_relative_to(root.resolve()):
        raise UntrustedFormat(
            f"{asset.name} is a link that leads out of its directory",
            file=asset,
            why=f"an artefact would carry along {asset.resolve()}",
            fix="put a copy of the file in its place, if that is what you want",
        )
    return asset


def _flush_and_hash(
    writer: SafetensorsWriter, names: Sequence[str], threads: int, on_finish: Callable[[int, int], None]
) -> dict[str, bytes]:
    """Finish the files; SHA-256 of each tensor, computed while the disk is busy with them."""
    # One file is flushed at a time, beside the hashing: the disk does not get faster by being asked twice.
    disk, pool = ThreadPoolExecutor(1, "flush"), ThreadPoolExecutor(threads, "hash")
    try:
        flushed = [disk.submit(writer.flush, file) for file in writer.files]
        hashed = {name: pool.submit(lambda name=name: hash_tensor(writer.read(name))) for name in names}
        waiting, total = {*hashed.values(), *flushed}, len(hashed) + len(flushed)
        while waiting:
            done, waiting = wait(waiting, timeout=_HEARTBEAT, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            on_finish(total - len(waiting), total)
    finally:
        # After Ctrl-C, or on a full disk, nobody waits for the hashes of all other tensors.
        pool.shutdown(cancel_futures=True)
        disk.shutdown(cancel_futures=True)
    writer.finish()
    return {name: future.result() for name, future in hashed.items()}


def _intact(writer: SafetensorsWriter, name: str, noted: int) -> bool:
    try:
        return checksum(writer.read(name)) == noted
    except (KeyError, OSError):
        return False


def _describe_members(pool: ModelPool) -> dict[str, Any]:
    return {name: _member(model) for name, model in pool.models.items() if model.source is not None}


def _member(model: PooledModel) -> dict[str, Any]:
    assert model.source is not None
    return {**describe_source(model.source), "fingerprint": fingerprint(model.checkpoint)}


def _in_dtype(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> Mapping[str, Tensor]:
    """`state` with its floating tensors in a dtype, None for their own; what is tied stays tied."""
    if dtype is None:
        return state
    made: dict[tuple[object, ...], Tensor] = {}

    def cast(tensor: Tensor) -> Tensor:
        place = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
        if place not in made:
            made[place] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return made[place]

    return {name: cast(tensor) if tensor.numel() else tensor for name, tensor in state.items()}


def _without_path(described: dict[str, Any]) -> dict[str, Any]:
    """An artefact can be moved, so where it is written is not part of it."""
    return {**described, "parameters": {k: v for k, v in described["parameters"].items() if k != "path"}}


def _state_dtype(config: Path, dtype: torch.dtype | None) -> None:
    """Have a transformers config.json name the dtype that was written."""
    if dtype is None or not config.exists():
        return
    data = json.loads(config.read_text(encoding="utf-8"))
    data.pop("torch_dtype", None)
    data["dtype"] = dtype_name(dtype)
    write_atomically(config, json.dumps(data, indent=2) + "\n")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
