"""What a model method is given: the pool, the tasks it may adapt to, Fabric, and the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionbench_core.errors import MissingCapability
from fusionbench_core.randomness import keyed_generator

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from fusionbench_core.methods.method import TensorMethod
    from fusionbench_core.pools.pool import ModelPool
    from fusionbench_core.tasks.adaptation import AdaptationTask


@dataclass(frozen=True)
class FusionJob:
    """Everything a :class:`~fusionbench_core.methods.ModelMethod` may use.

    Attributes:
        pool: The models; `pool.module(name)` gives a live one, `pool.checkpoint(name)` a lazy view.
        tasks: The tasks a method may adapt to, keyed by name, guarded: test data is refused unless the
            config says `taskpool.transductive: true`, labels unless the method declares their need.
        seed: Seed of the run.
        run_tensor_method: Runs a tensor method over the pool with the run's engine settings.
        make_fabric: Makes the run's Lightning Fabric.
        on_progress: Called with (done, total, message).
        directory: Where a method may keep what it needs to go on after an interruption: a resumed run gives
            the same one again. It need not exist yet; None if nothing is kept.
        learned_from: Such a directory of another run of the method: a training starts from what is in it.
        finish: Whether to learn no further, and to fuse with what an interrupted run has learned. A
            :class:`~fusionbench_core.Training` sees to it; a method of several asks which have begun.
    """

    pool: ModelPool
    tasks: Mapping[str, AdaptationTask] = field(default_factory=dict)
    seed: int = 0
    run_tensor_method: Callable[[TensorMethod], Mapping[str, Tensor]] | None = None
    make_fabric: Callable[[], Fabric] | None = None
    on_progress: Callable[[int, int, str], None] = lambda done, total, message: None
    directory: Path | None = None
    learned_from: Path | None = None
    finish: bool = False

    @cached_property
    def fabric(self) -> Fabric:
        """Lightning Fabric, configured by the run: devices, precision, strategy. Launched."""
        if self.make_fabric is None:
            from fusionbench_core.fabric import fabric_class

            return fabric_class()(accelerator="cpu", devices=1)
        return self.make_fabric()

    def merge(self, method: TensorMethod) -> dict[str, Tensor]:
        """State dict that a tensor method gives on this pool, e.g. for the part that is not learned.

        Raises:
            MissingCapability: if the job was made without an engine.
        """
        if self.run_tensor_method is None:
            raise MissingCapability(
                "this job cannot run tensor methods", fix="make it with `run_tensor_method`"
            )
        return dict(self.run_tensor_method(method))

    def generator(self, *key: object) -> torch.Generator:
        """A CPU generator keyed by the seed of the run and `key`."""
        return keyed_generator(self.seed, *key)

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Show how far the method is."""
        self.on_progress(done, total, message)


def details_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-able copy of `values`: tensors become nested lists of floats."""
    return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in values.items()}
