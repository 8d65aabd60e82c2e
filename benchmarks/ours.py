"""This platform: the physical limit, the engine alone, and a whole `fb run`."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from models import Models

from fusionbench_core import TensorMethod, open_checkpoint
from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.engine.merge import StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.pieces import LARGEST, Piece, cut
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.engine.workers import Workers
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.registry import default_registry

METHODS: dict[str, tuple[str, dict[str, object], bool]] = {
    "average": ("simple_average", {}, False),
    "task_arithmetic": ("task_arithmetic", {"scaling_factor": 0.3}, True),
    "ties": ("ties_merging", {"density": 0.2, "scaling_factor": 1.0}, True),
    "dare_ties": ("dare_ties", {"density": 0.5, "trim_density": 1.0, "scaling_factor": 1.0}, True),
    "della": ("della", {"density": 0.5, "epsilon": 0.1, "scaling_factor": 1.0}, True),
    "iso_c": ("iso_c", {"scaling_factor": 1.0}, True),
    "tsv_merging": ("tsv_merging", {"scaling_factor": 1.0}, True),
    "iso_cts": ("iso_cts", {"scaling_factor": 1.0}, True),
    "breadcrumbs": ("breadcrumbs", {"density": 0.2, "gamma": 0.01, "scaling_factor": 1.0}, True),
}
"""Name in the tables -> method, parameters, and whether the base is read."""


class Engine:
    """The engine in this process, writing one file into `output`."""

    def __init__(self, models: Models, output: Path, threads: int) -> None:
        self._models, self._output = models, output
        self._options = EngineOptions(threads=threads)

    def merge(self, name: str) -> None:
        """Plan, merge and write, hashing the output as a run does; without waiting for the disk."""
        method, pool, plan = self._planned(name)
        writer = self._writer(plan)
        try:
            StreamingMerge(method, plan, pool, writer, options=self._options).run()
        finally:
            writer.close()

    def limit(self, name: str) -> None:
        """Read each input once and write the output as the engine does, without any arithmetic."""
        _, pool, plan = self._planned(name)
        checkpoints = [pool.checkpoint(model) for model in pool.names]
        if METHODS[name][2]:
            checkpoints.append(pool.checkpoint())
        writer = self._writer(plan)
        move = partial(_move, checkpoints, writer, threading.local())
        try:
            with Workers(self._options.threads) as workers:
                pieces = (piece for step in plan for piece in cut(step, "element", plan.piece))
                for _ in workers.map(move, pieces, lambda piece: piece.stop - piece.start):
                    pass
        finally:
            writer.close()

    def _planned(self, name: str) -> tuple[TensorMethod, ModelPool, Plan]:
        short, parameters, _ = METHODS[name]
        method = default_registry().load("method", short)(**parameters)
        experts = self._models.experts.items()
        models = {expert: PooledModel(expert, content=open_checkpoint(path)) for expert, path in experts}
        pool = ModelPool(models, PooledModel("_base_", content=open_checkpoint(self._models.base)))
        return method, pool, make_plan(method, pool, self._options)

    def _writer(self, plan: Plan) -> SafetensorsWriter:
        shutil.rmtree(self._output, ignore_errors=True)
        self._output.mkdir(parents=True)
        return SafetensorsWriter(self._output, [(step.name, step.info) for step in plan])


def run_command(name: str, models: Models, output: Path, threads: int) -> list[str]:
    """A whole `fb run` of the same merge, without an evaluation."""
    short, parameters, _ = METHODS[name]
    shutil.rmtree(output, ignore_errors=True)
    config = output.parent / "configs" / f"bench_{name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    sections = {
        "method": {"name": short, **parameters},
        "modelpool": {
            "source": models.source,
            "base": str(models.base),
            "models": {expert: str(path) for expert, path in models.experts.items()},
        },
        "taskpool": None,
        # Nothing of an earlier round: what factorises would only read what was kept.
        "engine": {"threads": threads, "cache_size": 0},
        "output_dir": str(output),
    }
    # JSON is YAML.
    config.write_text(json.dumps(sections, indent=1))
    fb = "from fusionbench_core.__main__ import program; program()"
    where = ["--config-path", str(config.parent), "--config-name", config.stem]
    return [sys.executable, "-c", fb, "run", *where]


def _move(
    checkpoints: Sequence[Checkpoint], writer: SafetensorsWriter, own: threading.local, piece: Piece
) -> None:
    if not hasattr(own, "buffer"):
        own.buffer = torch.empty(LARGEST, dtype=piece.step.info.dtype)
    values = own.buffer[: piece.stop - piece.start]
    for checkpoint in checkpoints:
        values.copy_(checkpoint.chunk(piece.step.name, piece.start, piece.stop))
    writer.write(piece.step.name, piece.start, values)
