"""Runs on several devices: one process each, of which only the first writes and prints."""

from __future__ import annotations

import os
from dataclasses import replace

from fusionbench_core.config.schema import FabricConfig
from fusionbench_core.errors import ConfigError
from fusionbench_core.methods.method import ModelMethod
from fusionbench_core.registry import Registry
from fusionbench_core.run.console import Console
from fusionbench_core.run.fusing import call_model_method
from fusionbench_core.run.prepare import Prepared
from fusionbench_core.run.tuning import tune

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables in which Lightning, torchrun and Slurm number processes."""


def on_several(config: FabricConfig) -> bool:
    """Whether a run may be one of several processes."""
    devices = config.devices
    count = len(devices) if isinstance(devices, list) else devices
    return count not in (0, 1) or config.num_nodes > 1


def is_further(config: FabricConfig) -> bool:
    """Whether this process was started beside the first one of a run, to learn together with it.

    Fabric starts the whole command again for every further device.
    """
    return on_several(config) and any(os.environ.get(name, "0") not in ("", "0") for name in _RANKS)


def take_part(prepared: Prepared, registry: Registry) -> None:
    """Do this process's share of what is learned, and nothing else: the first process has the result."""
    if not isinstance(prepared.method, ModelMethod):
        return
    console, method = Console(), prepared.method
    if prepared.config.tune:
        tuned, _ = tune(prepared, registry, console)
        assert isinstance(tuned, ModelMethod)
        prepared, method = replace(prepared, method=tuned), tuned
    tasks = prepared.tasks
    adaptation = tasks.for_adaptation(method.capabilities.tasks) if tasks else {}
    call_model_method(method, prepared, adaptation, console)


def refuse_several(config: FabricConfig, what: str) -> None:
    """Refuse several devices for what is made of many runs.

    Raises:
        ConfigError: saying how else to do it.
    """
    if on_several(config):
        raise ConfigError(
            f"{what} cannot use several devices",
            config="fabric.devices",
            why="every further process repeats the whole command, and cannot know which run it is for",
            fix="run them one by one with fabric.devices, or all with fabric.devices=1",
        )
